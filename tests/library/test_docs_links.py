"""What the texts under docs/ point to exists: files, headings, paths and tests."""

import re
from functools import cache
from pathlib import Path

import pytest

from dandelion.params import LABEL_PREFIX

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

# The first folder of a path in back quotes that is meant from the root of the repository.
FOLDERS = ("client_py", "collector", "dandelion", "docs", "helper", "scripts", "tests")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
TEST = re.compile(r"test_[a-z0-9_]+")
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: a heading in lower case, punctuation gone, spaces as `-`."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@cache
def defined_tests() -> frozenset[str]:
    """The name of every test function and test module."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    functions = (re.findall(r"def (test_\w+)", path.read_text()) for path in files)
    return frozenset(path.stem for path in files).union(*functions)


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    """A link without a scheme is a file of the repository, and its anchor a heading of it."""
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pages
def test_named_paths_exist(page: Path) -> None:
    """A path in back quotes that starts in a folder of the root is there; `*` is any name."""
    for code in CODE.findall(prose(page)):
        if "*" in code and code.startswith(FOLDERS):
            assert list(ROOT.glob(code)), code
        elif PATH.fullmatch(code) and code != LABEL_PREFIX.decode():
            assert (ROOT / code).exists(), code


@pages
def test_named_tests_exist(page: Path) -> None:
    """A test in back quotes is one that runs."""
    named = {code for code in CODE.findall(prose(page)) if TEST.fullmatch(code)}
    assert named <= defined_tests()


@pages
def test_pages_speak_for_themselves(page: Path) -> None:
    """Nothing is explained by a text that a reader of this repository has not got."""
    local = {path.name for path in ROOT.rglob("*.md") if ".venv" not in path.parts}
    named = re.findall(r"\b[\w-]+\.md\b", page.read_text())
    assert set(named) <= local


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    """The control: a page with a dead link, a missing path and an invented test fails them all."""
    made = tmp_path / "page.md"
    made.write_text(
        "[gone](gone.md) `dandelion/gone.py` `collector/*.gone` `test_that_nobody_wrote`\n"
        "```\n[code](is/not.md) a link\n```\n"
    )
    checks = (test_relative_links_lead_somewhere, test_named_paths_exist, test_named_tests_exist)
    for check in (*checks, test_pages_speak_for_themselves):
        with pytest.raises(AssertionError):
            check(made)
