"""What the README shows exists: imports, attributes, commands, options and make verbs."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from dandelion.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> str:
    """All code blocks of a language."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


def test_python_example_imports_what_there_is() -> None:
    """It parses, and every name it imports exists."""
    tree = ast.parse(blocks("python"), mode="exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def commands() -> list[list[str]]:
    """Every `dandelion` command line of the README's shell blocks."""
    text = blocks("sh").replace("\\\n", " ")
    lines = [line.split("  #")[0].rstrip(" &") for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("dandelion ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_options_exist(words: list[str]) -> None:
    """Names and options are those of the command line."""
    command = get_command(app)
    while words and hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_make_verbs_exist() -> None:
    """Every `make` verb that the README names is in the Makefile."""
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", README)) | set(
        re.findall(r"^make ([a-z]+)", README, re.MULTILINE)
    )
    assert named
    assert named <= verbs
