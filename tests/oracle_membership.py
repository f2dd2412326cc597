"""The membership oracle: every simulated client sets its own coordinate and nothing else.

The sum of their vectors then is the list of who was counted, and how often: "acknowledged and
summed are the same set, each exactly once" becomes a comparison of two arrays.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.int64]


def one_hot(slots: int, client: int, scale: int = 1) -> Vector:
    """The vector of client number `client`: `scale` at its own coordinate. Shape (slots,)."""
    values = np.zeros(slots, dtype=np.int64)
    values[client] = scale
    return values


def counted(sums: Vector, scale: int = 1) -> dict[int, int]:
    """How often each client is in the sum; clients that are not are left out.

    With noise, `scale` must be far above its standard deviation: values are rounded to the nearest
    multiple.
    """
    times = np.rint(sums / scale).astype(np.int64)
    return {int(client): int(times[client]) for client in np.flatnonzero(times)}


def assert_exactly_once(sums: Vector, acknowledged: Iterable[int], scale: int = 1) -> None:
    """The acknowledged clients, and only they, are in the sum, each once."""
    assert counted(sums, scale) == dict.fromkeys(acknowledged, 1)
