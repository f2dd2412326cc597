"""`python -m collector --config FILE` runs a collector; `--init` first makes its identity."""

import argparse
import sys
from pathlib import Path

from collector.app import run
from collector.config import load_config
from dandelion.service.config import ConfigError
from dandelion.service.identity import StateError, init_state


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m collector", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--init", action="store_true", help="make the identity, print it, stop")
    parser.add_argument("--ingest-only", action="store_true", help="only take reports")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.init:
            identity = init_state(load_config(arguments.config).state_dir)
            sys.stdout.write(f"{identity.hex()}\n")
        else:
            run(
                arguments.config,
                ingest_only=arguments.ingest_only,
                worker=arguments.worker,
                port=arguments.port,
            )
    except (ConfigError, StateError, OSError) as error:
        sys.stderr.write(f"collector: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
