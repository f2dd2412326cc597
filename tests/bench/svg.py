"""Log-log plots as SVG: panels side by side, a few series in each, readable in light and in dark.

Ticks are powers of ten. Each series is named at its last point, in its colour, so nothing has to be
looked up in a legend.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]

_WIDTH: Final = 430
_HEIGHT: Final = 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 112, 40, 48
# Distinct for colour-blind readers, and far enough from both backgrounds.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#b8509c")
_STYLE: Final = """
    .back { fill: #ffffff; } .ink { fill: #1d2a44; } .dim { fill: #55617a; font-size: 11px; }
    .grid { stroke: #d9dee8; stroke-width: 1; } .axis { stroke: #55617a; stroke-width: 1; }
    .line { fill: none; stroke-width: 2; } .b { font-weight: 600; } .name { font-size: 12px; }
    @media (prefers-color-scheme: dark) {
      .back { fill: #12161f; } .ink { fill: #e6eaf2; } .dim { fill: #a3aec2; }
      .grid { stroke: #2b3342; } .axis { stroke: #a3aec2; }
    }
"""
_NAME_GAP: Final = 14


@dataclass(frozen=True)
class Series:
    """A line; x ascending, all values above zero."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: str
    y: str
    series: Sequence[Series]


def draw(title: str, description: str, panels: Sequence[Panel]) -> str:
    """The document, as text that ends with a newline."""
    width = _WIDTH * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="13" role="img"'
        ' aria-labelledby="t d">',
        f'  <title id="t">{escape(title)}</title>',
        f'  <desc id="d">{escape(description)}</desc>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="back" width="{width}" height="{_HEIGHT}"/>',
    ]
    for number, panel in enumerate(panels):
        lines.append(f'  <g transform="translate({number * _WIDTH} 0)">')
        lines += [f"    {line}" for line in _panel(panel)]
        lines.append("  </g>")
    return "\n".join([*lines, "</svg>", ""])


def slope(points: Sequence[Point]) -> float:
    """The least-squares slope of log y over log x: y grows as x to this power."""
    xs, ys = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return above / sum((a - x) ** 2 for a in xs)


class _Axis:
    """Where a value lies between two pixels, by its logarithm; whole powers of ten at the ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low = math.floor(math.log10(min(values)) + 1e-9)
        self.high = max(self.low + 1, math.ceil(math.log10(max(values)) - 1e-9))
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    @property
    def powers(self) -> range:
        """Powers of ten with a tick."""
        return range(self.low, self.high + 1)


def _panel(panel: Panel) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    points = [point for series in panel.series for point in series.points]
    x = _Axis([point[0] for point in points], _LEFT, right)
    y = _Axis([point[1] for point in points], bottom, _TOP)
    yield f'<text class="ink b" x="{_LEFT}" y="22">{escape(panel.title)}</text>'
    for power in x.powers:
        at = x(10.0**power)
        yield f'<line class="grid" x1="{at}" y1="{_TOP}" x2="{at}" y2="{bottom}"/>'
        yield _text("dim", at, bottom + 16, _tick(power), "middle")
    for power in y.powers:
        at = y(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{at}" x2="{right}" y2="{at}"/>'
        yield _text("dim", _LEFT - 6, at + 4, _tick(power), "end")
    yield f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
    yield _text("dim", (_LEFT + right) / 2, bottom + 36, panel.x, "middle")
    yield (
        f'<text class="dim" transform="translate(16 {(_TOP + bottom) / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(panel.y)}</text>'
    )
    taken: list[float] = []
    colours = dict(zip((series.name for series in panel.series), _COLOURS, strict=False))
    # From the bottom up, so that a name which has to make room moves away from the one below.
    for series in sorted(panel.series, key=lambda each: each.points[-1][1]):
        colour = colours[series.name]
        path = "L".join(f"{x(a)} {y(b)}" for a, b in series.points)
        yield f'<path class="line" stroke="{colour}" d="M{path}"/>'
        for a, b in series.points:
            yield f'<circle cx="{x(a)}" cy="{y(b)}" r="3" fill="{colour}"/>'
        at = y(series.points[-1][1]) + 4
        if taken:
            at = min(at, taken[-1] - _NAME_GAP)
        taken.append(at)
        last = x(series.points[-1][0]) + 8
        yield f'<text class="name" x="{last}" y="{at}" fill="{colour}">{escape(series.name)}</text>'


def _text(kind: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _tick(power: int) -> str:
    if 0 <= power <= 3:
        return f"{10**power}"
    digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"
