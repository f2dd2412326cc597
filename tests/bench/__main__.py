"""``make bench``: every ratio benchmark, one after the other, each in a process of its own.

Each prints its figures against a baseline of its own run and appends them to the record; the table
of the documentation is then written anew. ``python -m tests.bench store scale`` runs only these.
"""

import argparse
import subprocess
import sys

from tests.bench import table
from tests.bench.record import ROOT

BENCHMARKS = ("kernel", "ingest", "scale", "simulate", "store")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS))
    parser.add_argument("--dry", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    names = arguments.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark {min(unknown)!r}; there are: {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        command = [sys.executable, "-m", f"tests.bench.bench_{name}"]
        command += [] if arguments.dry else ["--record"]
        print(f"==> {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if not arguments.dry:
        table.rewrite()
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
