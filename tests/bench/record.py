"""What was measured, as one JSON line per result in ``results.ndjson``, and as a line to read.

A benchmark begins a `Run`, which notes commit, date, machine and load before it disturbs them,
measures, and hands over its figures. Machines differ and are shared, so the figure that counts is a
ratio to a baseline of the same run; absolute figures are kept to explain it.

    run = Run.begin("ingest")
    run.record({"slots": 100}, {
        "do-nothing handler": Figure.of(baseline, "reports/s"),
        "collector": Figure.of(rates, "reports/s", ratio=0.91, promise=">= 0.85"),
    })

Leaves out: how anything is measured, and the table of the documentation (``table.py``).
"""

import json
import os
import re
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).with_name("results.ndjson")
# Changed files of these make a commit's name a half-truth.
_PRODUCT: Final = ("client_py", "collector", "dandelion", "helper")
_PROMISE: Final = re.compile(r"(<=|>=|<|>) ([0-9.]+)")

Parameters = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Figure:
    """One measured quantity of a run.

    Attributes:
        unit: of `median`, `low` and `high`, such as `us`, `reports/s`, `MB`.
        median, low, high: of the samples.
        samples: how many there were.
        ratio: to the baseline of the same run; None for the baseline and for what has none.
        promise: such as `>= 0.85`: of the ratio if there is one, else of the median.
    """

    unit: str
    median: float
    low: float
    high: float
    samples: int = 1
    ratio: float | None = None
    promise: str | None = None

    @classmethod
    def of(
        cls,
        samples: float | Iterable[float],
        unit: str,
        *,
        ratio: float | None = None,
        promise: str | None = None,
    ) -> Self:
        """Median and spread of one sample or many."""
        taken = [float(samples)] if isinstance(samples, int | float) else list(samples)
        if promise is not None and not _PROMISE.fullmatch(promise):
            raise ValueError(f"a promise is a comparison with a number, not {promise!r}")
        return cls(
            unit,
            _short(statistics.median(taken)),
            _short(min(taken)),
            _short(max(taken)),
            len(taken),
            None if ratio is None else _short(ratio),
            promise,
        )

    @property
    def held(self) -> bool | None:
        """Whether the promise holds; None without one."""
        found = _PROMISE.fullmatch(self.promise or "")
        if found is None:
            return None
        value, bound = self.median if self.ratio is None else self.ratio, float(found[2])
        return {
            "<=": value <= bound,
            ">=": value >= bound,
            "<": value < bound,
            ">": value > bound,
        }[found[1]]

    def __str__(self) -> str:
        words = [f"{self.median:,.6g} {self.unit}"]
        if self.samples > 1:
            words.append(f"({self.low:,.6g} to {self.high:,.6g})")
        if self.ratio is not None:
            words.append(f"ratio {self.ratio:.3f}")
        if self.promise is not None:
            words.append(f"promise {self.promise} {'holds' if self.held else 'DOES NOT HOLD'}")
        return " ".join(words)


@dataclass(frozen=True)
class Result:
    """One line of the record."""

    benchmark: str
    commit: str
    date: str
    machine: str
    load: float | None
    parameters: Parameters
    figures: Mapping[str, Figure]

    @classmethod
    def parse(cls, line: str) -> Self:
        """The result of a line."""
        values: dict[str, Any] = json.loads(line)
        figures = {name: Figure(**figure) for name, figure in values.pop("figures").items()}
        return cls(**values, figures=figures)

    def line(self) -> str:
        """One line of JSON; what is unknown or absent is left out."""
        values = asdict(self)
        values["figures"] = {
            name: {k: v for k, v in figure.items() if v is not None}
            for name, figure in values["figures"].items()
        }
        return json.dumps(values, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Run:
    """The circumstances of a benchmark, noted before it begins."""

    benchmark: str
    commit: str
    date: str
    machine: str
    load: float

    @classmethod
    def begin(cls, benchmark: str) -> Self:
        """Notes them now."""
        return cls(
            benchmark,
            commit(),
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
            machine(),
            round(os.getloadavg()[0], 2),
        )

    def record(
        self,
        parameters: Parameters,
        figures: Mapping[str, Figure],
        *,
        to: Path | None = RESULTS,
    ) -> Result:
        """Prints a result and appends it to the record `to`, if any."""
        result = Result(
            self.benchmark, self.commit, self.date, self.machine, self.load, parameters, figures
        )
        print("\n".join(lines(result)), flush=True)
        if to is not None:
            with to.open("a", encoding="utf-8") as file:
                file.write(result.line())
        return result


def lines(result: Result) -> Iterator[str]:
    """A result for people."""
    given = ", ".join(f"{name} = {value}" for name, value in result.parameters.items())
    yield f"{result.benchmark}: {given}" if given else result.benchmark
    load = "unknown" if result.load is None else f"{result.load:g}"
    yield f"  commit {result.commit}, {result.date}, {result.machine}, load at start {load}"
    width = max(map(len, result.figures), default=0)
    for name, figure in result.figures.items():
        yield f"  {name:<{width}}  {figure}"


def results(path: Path = RESULTS) -> list[Result]:
    """The whole record, oldest first."""
    return [Result.parse(line) for line in path.read_text("utf-8").splitlines()]


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the ratios of samples that were taken in turns, side by side."""
    return statistics.median(a / b for a, b in zip(samples, baseline, strict=True))


def commit() -> str:
    """The commit of the checkout, with a plus if the product's files differ from it."""
    name = _git("rev-parse", "--short", "HEAD") or "unknown"
    return name + "+" if _git("status", "--porcelain", "--", *_PRODUCT) else name


def machine() -> str:
    """Processor model and number of cores that this process may use."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _short(value: float) -> float:
    """Six digits: more is noise, and makes lines that nobody compares."""
    return float(f"{value:.6g}")
