"""The import contracts of pyproject.toml, tried on small projects that keep or break them."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dandelion", "collector", "helper", "client_py")


def contracts() -> str:
    """The contracts' own part of pyproject.toml, as text."""
    text = (ROOT / "pyproject.toml").read_text()
    part = text[text.index("[tool.importlinter]") :]
    assert list(tomllib.loads(part)["tool"]) == ["importlinter"]
    return part


def lint(folder: Path, modules: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Lays out the four packages and `modules` (path to text) in `folder` and checks them."""
    (folder / "pyproject.toml").write_text(contracts())
    for package in PACKAGES:
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    for name, text in modules.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [linter, "--no-cache", "--no-logo"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "modules",
    [
        {},
        {"dandelion/cli.py": "import time\nimport collector\nimport helper\n"},
        {
            "dandelion/cli/__init__.py": "",
            "dandelion/cli/up.py": "import asyncio\nimport collector.app\n",
            "collector/app.py": "import aiohttp\nimport dandelion.messages\n",
            "dandelion/messages.py": "import dandelion.errors\n",
            "dandelion/errors.py": "",
        },
    ],
    ids=["nothing", "command", "downward"],
)
def test_allowed(tmp_path: Path, modules: dict[str, str]) -> None:
    """Imports that point down are kept, and the command may import the services and a clock."""
    done = lint(tmp_path, modules)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "modules",
    [
        {"collector/app.py": "import helper\n"},
        {"client_py/client.py": "import collector\n"},
        {"dandelion/round.py": "import collector\n"},
        {"dandelion/errors.py": "import dandelion.messages\n", "dandelion/messages.py": ""},
        {"dandelion/queries.py": "import dandelion.schemes\n", "dandelion/schemes.py": ""},
        {"dandelion/round.py": "import time\n"},
        {"dandelion/privacy.py": "from asyncio import sleep\n"},
        {"dandelion/schemes.py": "import redis\n"},
    ],
    ids=[
        "service-service",
        "client-service",
        "library-service",
        "upward",
        "sideways",
        "clock",
        "loop",
        "store",
    ],
)
def test_forbidden(tmp_path: Path, modules: dict[str, str]) -> None:
    """Imports that point up or sideways, and a library that reaches for the world, are found."""
    done = lint(tmp_path, modules)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
