"""Every operation of the public interface answers as its OpenAPI document says, whatever comes."""

import asyncio
from pathlib import Path

import pytest
from schemathesis.core.failures import FailureGroup

from collector import openapi
from tests.edge.schema import ask, phases, reachable

OPERATIONS = 9  # all but the document itself


async def test_answers_are_as_described(tmp_path: Path) -> None:
    """Good and bad cases for each operation: only described statuses, types, headers, bodies."""
    async with reachable(tmp_path) as it:
        seen = await asyncio.to_thread(ask, it, 20)
        assert len(seen) == OPERATIONS
        assert all(statuses.total() >= 20 for statuses in seen.values())
        # The cases reached what there is.
        assert {200, 404} <= set(seen["GET /v1/releases/{round}/table"])
        assert {201, 400} <= set(seen["POST /v1/rounds/{round}/reports"])
        status, output = await phases(it.url, "coverage", 1, folder=tmp_path)
        assert status == 0, output


async def test_control_a_false_description_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that the document leaves out, and nothing else, makes it fail."""
    monkeypatch.setattr(openapi, "_ROUND_TOKENS", ["store_unavailable"])
    openapi.document.cache_clear()
    try:
        async with reachable(tmp_path) as it:
            with pytest.raises(FailureGroup):
                await asyncio.to_thread(ask, it, 5)
    finally:
        monkeypatch.undo()
        openapi.document.cache_clear()
