"""The text and the code say the same (docs/protocol.md)."""

import re
from pathlib import Path

import pytest

from dandelion import params
from dandelion.errors import TOKENS, TokenInfo
from dandelion.round import TRANSITIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
SOURCES = [
    path
    for folder in ("dandelion", "collector", "helper", "client_py")
    for pattern in ("*.py", "*.rs", "*.lua", "*.pyi")
    for path in (ROOT / folder).rglob(pattern)
    if "target" not in path.parts
]


def test_error_tokens_are_those_of_the_text() -> None:
    """Section 12 and `errors.TOKENS` list the same tokens, statuses and titles."""
    section = TEXT.split("## 12. Errors")[1].split("## 13.")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \| (.+?) \|$", section, re.MULTILINE)
    assert {token: TokenInfo(int(status), title) for token, status, title in rows} == dict(TOKENS)


def test_limits_are_those_of_the_text() -> None:
    """Section 13 and `params` agree on every limit."""
    section = TEXT.split("## 13. Limits")[1].split("## 14.")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \|", section, re.MULTILINE)
    assert len(rows) > 10
    for name, value in rows:
        assert getattr(params, name.upper()) == int(value), name


def test_media_types_are_those_of_the_text() -> None:
    """Every media type the code knows stands in the text."""
    for name in dir(params):
        if name.startswith("MEDIA_"):
            assert getattr(params, name) in TEXT, name


def test_phases_are_those_of_the_text() -> None:
    """Section 9 names every phase of the transition table, and no other."""
    section = TEXT.split("## 9. Phases")[1].split("## 10.")[0]
    rows = set(re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE))
    assert rows == {phase.value for phase in TRANSITIONS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cited_sections_exist(path: Path) -> None:
    """A section that code cites is a heading of the text."""
    headings = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", TEXT, re.MULTILINE))
    cited = re.findall(r"protocol\.md(?:,)? (?:sections? )?(\d+(?:\.\d+)?)", path.read_text())
    assert set(cited) <= headings


def test_known_answers_of_the_vectors_readme_are_described() -> None:
    """Every vector file is described in the text."""
    section = TEXT.split("## 17. Vectors")[1]
    for path in (ROOT / "tests" / "vectors").glob("*.json"):
        assert f"`{path.stem}`" in section, path.stem
