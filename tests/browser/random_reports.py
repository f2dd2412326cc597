"""Writes random reports as Python's client makes them: `random_reports.py SEED COUNT`.

One JSON object a line: what a client has (suite, width, ctx, the ephemeral secret, the mask keys
of the helpers, the values) and the report as docs/protocol.md section 5 has it. Byte strings are
hexadecimal. wasm_stub/test/reports.test.ts compares with what the page's kernels make of the same.
"""

import json
import random
import sys

import numpy as np

from dandelion import kernel

WIDTHS = (16, 24, 32, 64)
VALUE_MAX = 2**53 - 1


def draw_value(draw: random.Random) -> int:
    """A value of any magnitude that a client may have, the edges often."""
    if draw.random() < 0.1:
        return draw.choice([0, 1, -1, VALUE_MAX, -VALUE_MAX, 2**32, -(2**32), 2**31, -(2**31)])
    bound = 1 << draw.randrange(54)
    return max(-VALUE_MAX, min(VALUE_MAX, draw.randrange(-bound, bound + 1)))


def draw_report(draw: random.Random) -> dict[str, object]:
    """One client of one round."""
    suite, width = draw.choice([1, 1, 1, 1, 2]), draw.choice(WIDTHS)
    ctx, secret = draw.randbytes(32), draw.randbytes(32)
    parties = draw.choice([1, 2, 2, 2, 3])
    mask_keys = b"".join(kernel.x25519_public(draw.randbytes(32)) for _ in range(parties))
    values = [draw_value(draw) for _ in range(draw.choice([0, 1, 3, 15, 16, 17, 33]))]
    packed = np.array(values, dtype=np.int64)
    epk, payload = kernel.mask(suite, width, ctx, secret, mask_keys, packed)
    return {
        "suite": suite,
        "width": width,
        "ctx": ctx.hex(),
        "secret": secret.hex(),
        "mask_keys": mask_keys.hex(),
        "values": values,
        "report": (b"\x01" + ctx[:16] + epk + payload).hex(),
    }


if __name__ == "__main__":
    seed, count = sys.argv[1:]
    source = random.Random(seed)
    for _ in range(int(count)):
        print(json.dumps(draw_report(source)))
