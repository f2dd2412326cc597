"""`dandelion bench`: what the hot loops cost on this machine, as ratios within one run.

Machines are noisy, so every figure is a median over interleaved repeats, and what counts is the
ratio to a baseline measured in between. Rates of the services are measured by `make bench`, which
needs a checkout.
"""

import hashlib
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from dandelion import kernel
from dandelion.cli.output import out, print_json, print_table, steps

_KEYS = 2_000


def bench(
    slots: Annotated[int, typer.Option(min=1, max=1_048_576, help="Words in a vector.")] = 1_000,
    repeats: Annotated[int, typer.Option(min=3, max=101, help="Interleaved repeats.")] = 9,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Measure masking and mask sums against the raw operations they are made of."""
    with steps(quiet=json) as progress, progress.step("bench", "Measuring", repeats) as bar:
        figures = measure(slots, repeats, bar.set)
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "slots": slots,
        "figures": figures,
    }
    if json:
        print_json(document)
        return
    rows = [
        (
            name,
            f"{f['median_us']:.1f}",
            f"{f['low_us']:.1f} .. {f['high_us']:.1f}",
            f"{f['ratio']:.2f}",
        )
        for name, f in figures.items()
    ]
    columns = ["one core, per report", ">median us", ">lowest .. highest", ">ratio to baseline"]
    print_table(f"{document['machine']}, {slots:,} slots", columns, rows)
    out.print("baseline: one X25519 and the ChaCha20 stream of one vector, same library, same run")


def measure(
    slots: int, repeats: int, progress: Callable[[int], None]
) -> dict[str, dict[str, float]]:
    """Microseconds per report of each operation: median, lowest, highest, and ratio to the
    baseline.
    """
    secret = hashlib.sha256(b"bench").digest()
    public = kernel.x25519_public(secret)
    epks = [kernel.x25519_public(hashlib.sha256(bytes([i])).digest()) for i in range(200)]
    keys = b"".join(sorted(epks)) * (_KEYS // len(epks))
    values = np.zeros(slots, dtype=np.int64)

    def baseline() -> None:
        for i in range(200):
            kernel.x25519(secret, epks[i])
            kernel.prg(1, secret, 4 * slots)

    operations: dict[str, tuple[Callable[[], object], int]] = {
        "baseline": (baseline, 200),
        "helper, mask sum, suite 1": (
            lambda: kernel.mask_sum(1, 32, slots, bytes(32), 1, secret, keys, 1),
            _KEYS,
        ),
        "helper, mask sum, suite 2": (
            lambda: kernel.mask_sum(2, 32, slots, bytes(32), 1, secret, keys, 1),
            _KEYS,
        ),
        "client, mask for two helpers": (
            lambda: [
                kernel.mask(1, 32, bytes(32), secret, public + epks[0], values) for _ in range(100)
            ],
            100,
        ),
        "helper, noise of one answer": (
            lambda: kernel.discrete_gaussian(1, secret, 27, slots),
            1,
        ),
    }
    samples: dict[str, list[float]] = {name: [] for name in operations}
    for repeat in range(repeats):
        for name, (operation, count) in operations.items():
            started = time.process_time()
            operation()
            samples[name].append(1e6 * (time.process_time() - started) / count)
        progress(repeat + 1)
    return {
        name: {
            "median_us": statistics.median(taken),
            "low_us": min(taken),
            "high_us": max(taken),
            "ratio": statistics.median(
                a / b for a, b in zip(taken, samples["baseline"], strict=True)
            ),
        }
        for name, taken in samples.items()
    }
