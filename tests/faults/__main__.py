"""`python -m tests.faults --seed N --seconds 60 --profile kill` runs a campaign of faults.

Prints the seed, what was injected, how many reports were acknowledged and included, and a verdict
per invariant. Ends with status 1 if anything that must hold does not, or if a control, in which
something is broken on purpose, passes unnoticed.
"""

import argparse
import asyncio
import sys

from tests.faults.campaign import campaign
from tests.faults.profiles import PROFILES


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of faults, for all profiles")
    parser.add_argument("--profile", action="append", choices=sorted(PROFILES), metavar="NAME")
    arguments = parser.parse_args()
    names = arguments.profile or list(PROFILES)
    failed = []
    for name in names:
        seconds = arguments.seconds / len(names)
        report = asyncio.run(campaign(name, arguments.seed, PROFILES[name], seconds))
        print(report, flush=True)
        if not report.passed:
            failed.append(name)
    if failed:
        print(f"FAILED with seed {arguments.seed}: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
