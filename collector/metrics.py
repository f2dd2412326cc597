"""Counters in the text format of Prometheus, from closed lists of names and labels.

No label follows a client, an address or a report; a round appears in none. Each process counts for
itself and sends snapshots to the first one, which tells them apart by the label `process`.
"""

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
    "waiting_reports": _Metric("gauge", "Reports between headers and answer"),
    "waiting_bytes": _Metric("gauge", "Bytes that these take"),
    "connections": _Metric("gauge", "Open public connections"),
    "connections_refused_total": _Metric("counter", "Connections beyond the limit"),
    "slow_connections_total": _Metric("counter", "Cut because they were slow"),
    "event_loop_lag_seconds": _Metric("gauge", "How late the event loop is"),
    "rounds": _Metric("gauge", "Rounds by phase", "phase", tuple(_PHASES)),
    "driver_failures_total": _Metric("counter", "Rounds whose driver ended by a fault of ours"),
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
        for name, metric in METRICS.items():
            for value in metric.values or ("",):
                if metric.kind != "histogram":
                    self._numbers[_key(name, value)] = 0.0
            if metric.kind == "histogram":
                for bound in metric.buckets:
                    self._numbers[_key(name + "_bucket", _text(bound))] = 0.0
                self._numbers[_key(name + "_bucket", "+Inf")] = 0.0
                self._numbers[name + "_sum"] = 0.0
                self._numbers[name + "_count"] = 0.0

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
        for bound in METRICS[name].buckets:
            if amount <= bound:
                self._numbers[_key(name + "_bucket", _text(bound))] += 1
        self._numbers[_key(name + "_bucket", "+Inf")] += 1
        self._numbers[name + "_sum"] += amount
        self._numbers[name + "_count"] += 1

    def snapshot(self) -> Snapshot:
        """All numbers, fit for JSON."""
        return dict(self._numbers)


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
