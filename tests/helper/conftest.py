"""Fixtures of the helper's tests."""

from pathlib import Path

import pytest

from tests.helper.builders import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh state directory with an identity, and a time that stands still."""
    return Bench(tmp_path)
