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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import typer

from dandelion import kernel
from dandelion.cli.output import out, print_json, print_table, steps

BASELINE: Final = "baseline"
# Of a list, as of a small cohort.
_KEYS = 1_000
_CLIENTS = 100
_SINGLE = 200

Samples = dict[str, list[float]]


def bench(
    slots: Annotated[int, typer.Option(min=1, max=1_048_576, help="Words in a vector.")] = 1_000,
    repeats: Annotated[int, typer.Option(min=3, max=101, help="Interleaved repeats.")] = 9,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Measure masking and mask sums against the raw operations they are made of."""
    with steps(quiet=json) as progress, progress.step("bench", "Measuring", repeats) as bar:
        samples = measure(operations(slots), repeats, bar.set)
    figures = {
        name: {
            "median_us": statistics.median(taken),
            "low_us": min(taken),
            "high_us": max(taken),
            "ratio": ratio(taken, samples[BASELINE]),
        }
        for name, taken in samples.items()
    }
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "lanes": kernel.X25519_LANES,
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
    out.print(f"lists of keys are multiplied {kernel.X25519_LANES} at a time")


@dataclass(frozen=True)
class Operation:
    """What is measured: `call` does it for `count` reports."""

    call: Callable[[], object]
    count: int


def operations(slots: int) -> dict[str, Operation]:
    """All operations; each name has its own samples, `BASELINE` those of the baseline."""
    secret, ctx = hashlib.sha256(b"bench").digest(), bytes(32)
    scalars = [hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(_KEYS)]
    epks = sorted(kernel.x25519_public(scalar) for scalar in scalars)
    keys, mask_keys = b"".join(epks), b"".join(epks[:2])
    values = np.zeros(slots, dtype=np.int64)

    def mask_sum(suite: int) -> bytes:
        return kernel.mask_sum(suite, 32, slots, ctx, 1, secret, keys, 1)

    def answer(suite: int) -> None:
        mask_sum(suite)
        kernel.discrete_gaussian(suite, secret, 27, slots)

    def each(call: Callable[[bytes], object]) -> Operation:
        def calls() -> None:
            for epk in epks[:_SINGLE]:
                call(epk)

        return Operation(calls, _SINGLE)

    return {
        BASELINE: each(lambda epk: (kernel.x25519(secret, epk), kernel.prg(1, secret, 4 * slots))),
        "X25519": each(lambda epk: kernel.x25519(secret, epk)),
        "X25519 of a list": Operation(lambda: kernel.x25519_many(secret * _KEYS, keys), _KEYS),
        "key derivation of a mask": each(
            lambda epk: kernel.mask_seed(
                kernel.dhkem_extract_and_expand(secret, epk + epk), secret, 1
            )
        ),
        "stream of a mask, suite 1": each(lambda _: kernel.prg(1, secret, 4 * slots)),
        "stream of a mask, suite 2": each(lambda _: kernel.prg(2, secret, 4 * slots)),
        "helper, mask sum, suite 1": Operation(lambda: mask_sum(1), _KEYS),
        "helper, mask sum, suite 2": Operation(lambda: mask_sum(2), _KEYS),
        f"helper, answer with noise to {_KEYS:,}, suite 1": Operation(lambda: answer(1), _KEYS),
        f"helper, answer with noise to {_KEYS:,}, suite 2": Operation(lambda: answer(2), _KEYS),
        "client, mask for two helpers": each(
            lambda epk: kernel.mask(1, 32, ctx, secret, mask_keys, values)
        ),
        "many clients, reports for two helpers": Operation(
            lambda: kernel.mask_many(
                1, 32, ctx, b"".join(scalars[:_CLIENTS]), mask_keys, values, b"", 1
            ),
            _CLIENTS,
        ),
        "helper, noise of one answer": Operation(
            lambda: kernel.discrete_gaussian(1, secret, 27, slots), 1
        ),
    }


def measure(
    measured: Mapping[str, Operation], repeats: int, progress: Callable[[int], None] | None = None
) -> Samples:
    """Microseconds of core time per report of each operation, `repeats` times, in turns."""
    samples: Samples = {name: [] for name in measured}
    for repeat in range(repeats):
        for name, operation in measured.items():
            started = time.process_time()
            operation.call()
            spent = time.process_time() - started
            samples[name].append(1e6 * spent / operation.count)
        if progress:
            progress(repeat + 1)
    return samples


def ratio(taken: list[float], baseline: list[float]) -> float:
    """The median of the ratios of what was measured side by side."""
    return statistics.median(a / b for a, b in zip(taken, baseline, strict=True))
