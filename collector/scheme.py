"""What the collector needs to know of a scheme; another scheme is another module behind this door.

Everything else in this service treats reports, sums and answers as bytes of known length.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dandelion.descriptor import Descriptor
from dandelion.params import SCHEME_ONESHOT
from dandelion.schemes import oneshot


class Scheme(Protocol):
    """The functions of `dandelion.schemes` that a collector calls. All are pure."""

    def zero(self, descriptor: Descriptor) -> bytes:
        """Where a running sum starts, packed."""

    def fold(self, descriptor: Descriptor, total: bytes, bodies: Sequence[bytes]) -> bytes:
        """`total` with the payloads of encoded reports added, packed."""

    def add_sums(self, descriptor: Descriptor, sums: Sequence[bytes]) -> bytes:
        """The sum of running sums, packed."""

    def check_keys(self, descriptor: Descriptor, shard: int, keys: bytes) -> None:
        """Judges the keys of an ask as a helper will. Raises `DandelionError`."""

    def unmask(
        self, descriptor: Descriptor, y: bytes, rs: Sequence[bytes], n: int
    ) -> npt.NDArray[np.int64]:
        """The released vector, shape (slots,). Raises `WireError("implausible")`."""


SCHEMES: Final[Mapping[int, Scheme]] = {SCHEME_ONESHOT: oneshot}


def scheme_of(descriptor: Descriptor) -> Scheme:
    """The scheme of a round."""
    return SCHEMES[descriptor.scheme]
