"""The published vectors, replayed: the same loop as in every other implementation."""

import json
from pathlib import Path
from typing import Any

import pytest

from dandelion.vectors.__main__ import ALL_INPUTS, render
from dandelion.vectors.operations import OPERATIONS, run

VECTORS = Path(__file__).parents[1] / "vectors"


def load() -> list[Any]:
    """Every vector as (operation, vector)."""
    return [
        pytest.param(operation, vector, id=f"{operation}: {vector['name']}")
        for operation in OPERATIONS
        for vector in json.loads((VECTORS / f"{operation}.json").read_text())
    ]


@pytest.mark.parametrize("operation, vector", load())
def test_vector_is_reproduced(operation: str, vector: dict[str, Any]) -> None:
    """Output and expectation of each vector come out again."""
    assert run(operation, vector["input"]) == (vector["output"], vector["expect"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_files_are_what_the_writer_writes(operation: str) -> None:
    """`make vectors` would change nothing."""
    assert (VECTORS / f"{operation}.json").read_text() == render(operation)


def test_every_operation_has_inputs_and_an_invalid_case_where_it_can_fail() -> None:
    """No operation is left without vectors; every message has one that must be refused."""
    assert set(ALL_INPUTS) == set(OPERATIONS)
    cannot_fail = {"prg", "noise", "accounting", "mask", "answer"}
    for operation in set(OPERATIONS) - cannot_fail:
        vectors = json.loads((VECTORS / f"{operation}.json").read_text())
        assert {v["expect"] == "valid" for v in vectors} == {True, False}, operation
