"""Profiles the collector of ``python -m tests.bench.million --profile FOLDER``.

The interpreter imports this by itself where the folder is on PYTHONPATH: the product has no switch
for it. A collector that ends in good order leaves `<pid>.prof` there; other processes are left
alone.
"""

import atexit
import cProfile
import os
import sys
from pathlib import Path

folder = os.environ.get("BENCH_PROFILE")
if folder and sys.orig_argv[1:3] == ["-m", "collector"]:
    profile = cProfile.Profile()

    def end(into: str = folder) -> None:
        """Writes what was seen."""
        profile.disable()
        profile.dump_stats(Path(into) / f"{os.getpid()}.prof")

    atexit.register(end)
    profile.enable()
