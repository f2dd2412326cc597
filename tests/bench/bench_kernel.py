"""Core time of the kernel's two hot calls: ``python tests/bench/bench_kernel.py``.

A helper's work per report, ``mask_sum`` at d slots, stands beside what it cannot do without: one
X25519 of the same library and the ChaCha20 stream of one mask. The two are measured in turns on one
thread, so that a busy machine slows both, and the medians are compared. libsodium's X25519 is there
to tell a slow library from a slow machine.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import nacl.bindings
import numpy as np

from dandelion import kernel

SUITE = kernel.SUITE_X25519_CHACHA20
WIDTH = 32


def core_us(call: Callable[[], object], times: int) -> float:
    """Core time of one of ``times`` calls, in microseconds."""
    began = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - began) / times / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    slots, reports = arguments.slots, arguments.reports

    ctx, secret = os.urandom(32), os.urandom(32)
    peer = kernel.x25519_public(os.urandom(32))
    epks = b"".join(kernel.x25519_public(os.urandom(32)) for _ in range(reports))
    mask_keys = b"".join(kernel.x25519_public(os.urandom(32)) for _ in range(2))
    values = np.zeros(slots, dtype=np.int64)
    stream_bytes = slots * WIDTH // 8

    # Each with the number of calls and of reports in a call.
    measured: dict[str, tuple[Callable[[], object], int, int]] = {
        "x25519": (lambda: kernel.x25519(secret, peer), reports, 1),
        "stream of one mask": (lambda: kernel.prg(SUITE, secret, stream_bytes), reports, 1),
        "mask_sum, per report": (
            lambda: kernel.mask_sum(SUITE, WIDTH, slots, ctx, 1, secret, epks, threads=1),
            1,
            reports,
        ),
        "mask, m = 2": (
            lambda: kernel.mask(SUITE, WIDTH, ctx, secret, mask_keys, values),
            max(1, reports // 4),
            1,
        ),
        "x25519 of libsodium": (
            lambda: nacl.bindings.crypto_scalarmult(secret, peer),
            reports,
            1,
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(arguments.repeats):
        for name, (call, calls, batch) in measured.items():
            times[name].append(core_us(call, calls) / batch)
    medians = {name: statistics.median(series) for name, series in times.items()}

    print(
        f"kernel {kernel.KERNEL_VERSION}, ChaCha20, d = {slots}, w = {WIDTH}, {reports} reports,"
        f" median of {arguments.repeats} turns, core time"
    )
    for name, median in medians.items():
        print(f"{name:<22} {median:9.2f} us")
    baseline = medians["x25519"] + medians["stream of one mask"]
    ratio = medians["mask_sum, per report"] / baseline
    print(f"mask_sum / (x25519 + stream): {ratio:.3f}")


if __name__ == "__main__":
    main()
