"""Pace steering: every answer says when to come back (docs/protocol.md section 10.3).

Whoever is told a window is booked for it: as much in each of its seconds, since clients draw
uniformly. The next window is the first one that has room, so a crowd is spread at the target rate
over as long as that takes, and a few clients come back soon. No client is known, only requests are
counted. Those that never come back leave gaps, and those told before a restart come unbooked: for a
while the rate is lower, or up to twice as high.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from collector.config import PaceConfig
from dandelion.params import WINDOW_HEADER

# A window takes no more when it is booked to this share, or its first second is.
FULL: Final = 7 / 8


class Pace:
    """The current window. `clock` gives Unix seconds, `steady` seconds that never jump."""

    def __init__(
        self, config: PaceConfig, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._steady = steady
        self._target = config.target_per_s
        self._width = config.window_min_s
        self._nearest = config.window_min_s
        self._farthest = max(config.window_max_s, self._nearest + self._width)
        # Requests booked for each second from `_since` on.
        self._booked = np.zeros(self._farthest + 1)
        self._since = math.floor(steady())
        self._counted = 0
        self.turn = 0
        self._choose()

    def arrived(self) -> None:
        """Counts one request, whose answer names the window. `turn` changes if the window does."""
        if self._counted >= self._quota or self._steady() - self._since >= 1.0:
            self._book()
            self._choose()
        self._counted += 1

    def window(self) -> tuple[int, int]:
        """First and last second of the window, Unix time."""
        now = int(self._clock())
        return now + self._start, now + self._end

    def headers(self) -> dict[str, str]:
        """What every answer carries: `Dandelion-Window`, first and last second."""
        start, end = self.window()
        return {WINDOW_HEADER: f"{start} {end}"}

    def _book(self) -> None:
        """Enters those that were told the window, and lets the past go."""
        self._booked[self._start : self._end] += self._counted / (self._end - self._start)
        self._counted = 0
        gone = math.floor(self._steady()) - self._since
        self._since += gone
        gone = min(gone, len(self._booked))
        self._booked[: len(self._booked) - gone] = self._booked[gone:]
        self._booked[len(self._booked) - gone :] = 0.0

    def _choose(self) -> None:
        """The first window with room; all there are, if none has."""
        self.turn += 1
        starts = slice(self._nearest, self._farthest - self._width + 1)
        before = np.concatenate(([0.0], np.cumsum(self._booked)))
        taken = (before[self._width :] - before[: -self._width])[starts]
        full = FULL * self._target
        room = (taken <= full * self._width) & (self._booked[starts] <= full)
        first = int(np.argmax(room))
        if room[first]:
            self._start = self._nearest + first
            self._end = self._start + self._width
            # Not all of the room at once: the next look finds the rest.
            self._quota = max(1.0, (self._target * self._width - taken[first]) / 4)
        else:
            self._start, self._end = self._nearest, self._farthest
            self._quota = max(1.0, self._target)
