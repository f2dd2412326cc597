"""Pace steering: every answer says when to come back (docs/protocol.md section 10.3).

Clients draw their next visit uniformly from a window. If they come at r per second and the window
is w seconds wide, there are about r * w of them, so a window of r * w / target seconds brings them
at the target rate. The estimate needs no client to be known: only requests are counted.
"""

import math
from collections.abc import Callable

from collector.config import PaceConfig
from dandelion.params import WINDOW_HEADER

# How quickly old requests are forgotten, in seconds.
MEMORY_S = 10.0


class Pace:
    """The current window. `clock` gives Unix seconds, `steady` seconds that never jump."""

    def __init__(
        self, config: PaceConfig, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._config = config
        self._clock = clock
        self._steady = steady
        self._rate = 0.0
        self._width = float(config.window_min_s)
        self._counted = 0
        self._since = steady()

    def arrived(self) -> None:
        """Counts one request."""
        self._counted += 1
        elapsed = self._steady() - self._since
        if elapsed >= 1.0:
            self._update(elapsed)

    def window(self) -> tuple[int, int]:
        """First and last second of the window, Unix time."""
        now = int(self._clock())
        start = now + self._config.window_min_s
        return start, start + math.ceil(self._width)

    def headers(self) -> dict[str, str]:
        """What every answer carries: `Dandelion-Window`, first and last second."""
        start, end = self.window()
        return {WINDOW_HEADER: f"{start} {end}"}

    def _update(self, elapsed: float) -> None:
        keep = math.exp(-elapsed / MEMORY_S)
        self._rate = keep * self._rate + (1 - keep) * self._counted / elapsed
        self._counted = 0
        self._since += elapsed
        # Clients that come now were told the width of some time ago; moving slowly towards the new
        # one keeps the two from chasing each other.
        wanted = self._rate * self._width / self._config.target_per_s
        low, high = self._config.window_min_s, self._config.window_max_s
        self._width += (1 - keep) * (min(max(wanted, low), high) - self._width)
