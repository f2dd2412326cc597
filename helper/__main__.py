"""`python -m helper --config FILE` runs a helper; `--init` first makes its identity."""

import argparse
import sys
from pathlib import Path

from dandelion.service.config import ConfigError
from dandelion.service.identity import StateError, init_state
from helper.app import run
from helper.config import load_config


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helper", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--init", action="store_true", help="make the identity, print it, stop")
    arguments = parser.parse_args()
    try:
        if arguments.init:
            identity = init_state(load_config(arguments.config).state_dir)
            sys.stdout.write(f"{identity.hex()}\n")
        else:
            run(arguments.config)
    except (ConfigError, StateError, OSError) as error:
        sys.stderr.write(f"helper: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
