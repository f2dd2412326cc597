"""Writes `tests/vectors/`, or with `--check` fails if a file is not what it should be."""

import argparse
import json
import sys
from pathlib import Path

from dandelion.vectors.inputs import INPUTS
from dandelion.vectors.message_inputs import MESSAGE_INPUTS
from dandelion.vectors.operations import run
from dandelion.vectors.plan_inputs import PLAN_INPUTS

ALL_INPUTS = {**INPUTS, **MESSAGE_INPUTS, **PLAN_INPUTS}


def render(operation: str) -> str:
    """The text of one file."""
    vectors = []
    for name, given in ALL_INPUTS[operation]():
        output, expect = run(operation, given)
        vectors.append({"name": name, "input": given, "output": output, "expect": expect})
    return json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m dandelion.vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("tests/vectors"))
    arguments = parser.parse_args()
    stale = []
    for operation in ALL_INPUTS:
        path = arguments.directory / f"{operation}.json"
        text = render(operation)
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path)
    for path in stale:
        sys.stderr.write(f"{path} is not what `make vectors` writes\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
