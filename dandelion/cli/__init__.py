"""The `dandelion` command. The only part of the library that imports the services.

Rules of output: results on standard output, everything else on standard error; `--json` prints
one JSON document and nothing beside it; an error is one line and a non-zero exit.
"""

from dandelion.cli.app import main

__all__ = ["main"]
