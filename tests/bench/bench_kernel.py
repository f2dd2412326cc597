"""Core time of the kernel: ``python -m tests.bench.bench_kernel``.

The operations of ``dandelion bench``, on the record. A helper's work per report, ``mask_sum`` at d
slots, stands beside what it could not do without if keys came one by one: one X25519 of the library
and the ChaCha20 stream of one mask. All are measured in turns on one thread, so that a busy machine
slows them all. X25519 of libsodium is there to tell a slow library from a slow machine.
"""

import argparse

import nacl.bindings

from dandelion import kernel
from dandelion.cli.bench import BASELINE, Operation, Samples, measure, operations
from tests.bench.record import RESULTS, Figure, Run, paired_ratio

# Of a helper's core time per report, noise included.
PROMISE = "<= 1.3"
LIBSODIUM = "X25519 of libsodium"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    run = Run.begin("dandelion bench")
    samples = measure({**operations(arguments.slots), LIBSODIUM: libsodium()}, arguments.repeats)
    run.record(
        {"slots": arguments.slots, "lanes": kernel.X25519_LANES},
        figures(samples),
        to=RESULTS if arguments.record else None,
    )


def libsodium() -> Operation:
    """A hundred X25519 of libsodium."""
    secret = bytes(range(32))
    point = kernel.x25519_public(secret)

    def calls() -> None:
        for _ in range(100):
            nacl.bindings.crypto_scalarmult(secret, point)

    return Operation(calls, 100)


def figures(samples: Samples) -> dict[str, Figure]:
    """Microseconds per report, and ratios to the baseline; those of a helper are promised."""
    found = {}
    for name, taken in samples.items():
        ratio = None if name == BASELINE else paired_ratio(taken, samples[BASELINE])
        promised = name.startswith(("helper, mask sum", "helper, answer"))
        found[name] = Figure.of(taken, "us", ratio=ratio, promise=PROMISE if promised else None)
    return found


if __name__ == "__main__":
    main()
