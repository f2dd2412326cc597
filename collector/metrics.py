"""Counters in the text format of Prometheus, from closed lists of names and labels.

No label follows a client, an address or a report; a round appears in none. Each process counts for
itself and sends snapshots to the first one, which tells them apart by the label `process`.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, NamedTuple

Snapshot = dict[str, float]


class _Metric(NamedTuple):
    kind: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SIZES: Final = (1, 4, 16, 64, 256, 1024)
_RESULTS: Final = [
    "accepted",
    "duplicate",
    "conflict",
    "closed",
    "not_open",
    "damaged",
    "unavailable",
    "overloaded",
    "draining",
    "malformed",
    "slow",
    "unknown_round",
    "gone",
]
_COMMITS: Final = ["ok", "already", "dup", "full", "sealed", "lost", "unavailable"]
_PHASES: Final = ["open", "closing", "sealed", "released", "abandoned", "damaged"]

METRICS: Final[Mapping[str, _Metric]] = {
    "reports_total": _Metric("counter", "Reports by result", "result", tuple(_RESULTS)),
    "report_bytes_total": _Metric("counter", "Bytes of report bodies read"),
    "report_seconds": _Metric("histogram", "From headers to answer", buckets=_SECONDS),
    "commits_total": _Metric("counter", "Answers of the store", "result", tuple(_COMMITS)),
    "commit_seconds": _Metric("histogram", "Duration of a commit", buckets=_SECONDS),
    "commit_reports": _Metric("histogram", "Reports in a commit", buckets=_SIZES),
    "waiting_reports": _Metric("gauge", "Reports between headers and a known fate"),
    "waiting_bytes": _Metric("gauge", "Bytes that these take"),
    "connections": _Metric("gauge", "Open public connections"),
    "connections_refused_total": _Metric("counter", "Connections beyond the limit"),
    "slow_connections_total": _Metric("counter", "Cut because they were slow"),
    "event_loop_lag_seconds": _Metric("gauge", "How late the event loop is"),
    "rounds": _Metric("gauge", "Rounds by phase", "phase", tuple(_PHASES)),
    "driver_failures_total": _Metric("counter", "Faults of ours that held a round up"),
    "helper_requests_total": _Metric(
        "counter", "Requests to helpers by result", "result", ("ok", "refused", "unavailable")
    ),
    "store_memory_bytes": _Metric("gauge", "Memory of the store"),
    "store_delayed_fsync_total": _Metric("gauge", "Late fsyncs of the store; must stay 0"),
    "ledger_entries": _Metric("gauge", "Entries of the ledger"),
    "ready": _Metric("gauge", "1 if the process is ready"),
}


class Metrics:
    """The numbers of one process. A name or label value outside the lists is a `KeyError`."""

    def __init__(self) -> None:
        self._numbers: Snapshot = {}
        self._histograms: dict[str, _Histogram] = {}
        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                self._histograms[name] = _Histogram(metric.buckets)
            else:
                for value in metric.values or ("",):
                    self._numbers[_key(name, value)] = 0.0

    def count(self, name: str, value: str = "", by: float = 1) -> None:
        """Adds to a counter; `value` is the value of its label."""
        self._numbers[_key(name, value)] += by

    def set(self, name: str, to: float, value: str = "") -> None:
        """Sets a gauge, or a counter that is kept elsewhere."""
        if _key(name, value) not in self._numbers:
            raise KeyError(name)
        self._numbers[_key(name, value)] = to

    def observe(self, name: str, amount: float) -> None:
        """Adds one observation to a histogram."""
        self._histograms[name].add(amount)

    def snapshot(self) -> Snapshot:
        """All numbers, fit for JSON."""
        found = dict(self._numbers)
        for name, histogram in self._histograms.items():
            found |= histogram.series(name)
        return found


class _Histogram:
    """Observations by bucket; they are added up only when somebody looks."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def series(self, name: str) -> Snapshot:
        labels = [*map(_text, self._bounds), "+Inf"]
        total, found = 0, {}
        for label, count in zip(labels, self._counts, strict=True):
            total += count
            found[_key(f"{name}_bucket", label)] = float(total)
        return found | {f"{name}_sum": self._sum, f"{name}_count": float(total)}


def render(snapshots: Mapping[str, Snapshot]) -> str:
    """The text format, one series per process."""
    lines = []
    for name, metric in METRICS.items():
        full = f"dandelion_{name}"
        lines.append(f"# HELP {full} {metric.help}")
        lines.append(f"# TYPE {full} {metric.kind}")
        label = "le" if metric.kind == "histogram" else metric.label
        for process, snapshot in sorted(snapshots.items()):
            for key, number in snapshot.items():
                series, _, value = key.partition("|")
                if series not in (name, f"{name}_bucket", f"{name}_sum", f"{name}_count"):
                    continue
                labels = f'process="{process}"' + (f',{label}="{value}"' if value else "")
                lines.append(f"dandelion_{series}{{{labels}}} {_text(number)}")
    return "\n".join(lines) + "\n"


def _key(name: str, value: str) -> str:
    return f"{name}|{value}" if value else name


def _text(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
