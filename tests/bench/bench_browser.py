"""The browser SDK in Chromium: ``make bench-browser``, or ``python -m tests.bench.bench_browser``.

In one page and one run: mask and frame by the compiled kernel and by the one in TypeScript, and a
report for a histogram of 100 buckets beside Divvi Up's client, call by call in turns. Then whole
contributions of fresh pages to a live deployment, and how long each kept its main thread busy. And
what the package weighs beside Divvi Up's, both packed by ``gzip -9``.

Needs what ``make sdk`` builds. Leaves out what runs in the page (``wasm_stub/bench/page.ts``).
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from playwright.async_api import Browser

from client_py.config import Policy
from dandelion.cli.http import Api
from dandelion.cli.stack import Settings, Stack
from tests.bench import table
from tests.bench.record import RESULTS, ROOT, Figure, Run, paired_ratio
from tests.browser.chromium import chromium

PACKAGE: Final = ROOT / "wasm_stub"
BUILT: Final = PACKAGE / "build" / "bench"
DIST: Final = PACKAGE / "dist"
# Milliseconds, for the median.
PROMISED: Final = {"1,000 slots": "< 3", "16,000 slots": "< 10"}
KILOBYTES: Final = "<= 12"
SLOTS: Final = (1_000, 16_000)
ROWS: Final = 20
IDLE_MS: Final = 1_500
COHORT_MIN: Final = 10
_SCOPE: Final = "bench"
_REGISTRY: Final = {
    "events": {"visit": {"columns": {"v": {"kind": "number", "lo": 0, "hi": max(SLOTS)}}}}
}
# Isolated pages have a clock of five microseconds instead of a hundred.
_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_POLICIES: Final = {
    "wasm": "script-src 'self' 'wasm-unsafe-eval'",
    "TypeScript": "script-src 'self'",
}


@dataclass(frozen=True)
class Pages:
    """Fresh pages that all did the same. Milliseconds."""

    longest: list[float]
    total: list[float]
    long_tasks: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=101)
    parser.add_argument("--pages", type=int, default=9)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    done = subprocess.run(
        ["node", "bench/build.mjs"], cwd=PACKAGE, check=True, capture_output=True, text=True
    )
    sizes = json.loads(done.stdout)
    run = Run.begin("browser")
    figures = asyncio.run(_measure(arguments.turns, arguments.pages)) | _sizes(sizes)
    parameters = {"turns": arguments.turns, "pages": arguments.pages}
    run.record(parameters, figures, to=None if arguments.dry else RESULTS)
    if not arguments.dry:
        table.rewrite()


async def _measure(turns: int, pages: int) -> dict[str, Figure]:
    async with _site() as origin, chromium() as browser:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{origin}/wasm")
        found = await page.evaluate(
            "async (turns) => (await import('/page.js')).measure(turns)", turns
        )
        await context.close()
        figures = _operations(found["samples"], found["bytes"])
        with tempfile.TemporaryDirectory(prefix="dandelion-bench-") as folder:
            stack = Stack(_settings(Path(folder), origin))
            await asyncio.to_thread(stack.start)
            try:
                figures |= await _contributions(stack, browser, origin, pages)
            finally:
                await asyncio.to_thread(stack.stop)
    return figures


def _operations(samples: dict[str, list[float]], sizes: list[int]) -> dict[str, Figure]:
    figures = {}
    for slots in (f"{it:,} slots" for it in SLOTS):
        compiled, plain = samples[slots], samples[f"{slots}, TypeScript"]
        figures[f"mask and frame, {slots}"] = Figure.of(compiled, "ms", promise=PROMISED[slots])
        figures[f"mask and frame, {slots}, TypeScript"] = Figure.of(plain, "ms")
        figures[f"{slots}: TypeScript to wasm"] = Figure.of(paired_ratio(plain, compiled), "x")
    theirs = samples["histogram, Divvi Up"]
    figures["report for 100 buckets, Divvi Up"] = Figure.of(theirs, "ms")
    for name, words in (("histogram", ""), ("histogram, TypeScript", ", TypeScript")):
        ratio = paired_ratio(samples[name], theirs)
        figures[f"report for 100 buckets{words}"] = Figure.of(samples[name], "ms", ratio=ratio)
    figures["its bytes, Divvi Up"] = Figure.of(sizes[1], "B")
    figures["its bytes"] = Figure.of(sizes[0], "B", ratio=sizes[0] / sizes[1])
    return figures


async def _contributions(
    stack: Stack, browser: Browser, origin: str, pages: int
) -> dict[str, Figure]:
    """Whole contributions, and pages that do nothing as the measure of a busy machine."""
    idle = await _pages(browser, pages, f"{origin}/wasm", "idle", IDLE_MS)
    figures = _figures("pages that do nothing", idle, None)
    for slots in SLOTS:
        options = await _open(stack, slots)
        for kernel in _POLICIES:
            words = ("/sdk/index.js", options, ROWS)
            taken = await _pages(browser, pages, f"{origin}/{kernel}", "contribute", *words)
            promise = "<= 0" if kernel == "wasm" else None
            figures |= _figures(f"contributions, {slots:,} slots, {kernel}", taken, promise)
    return figures


def _figures(name: str, taken: Pages, promise: str | None) -> dict[str, Figure]:
    return {
        f"{name}: tasks over 50 ms": Figure.of(sum(taken.long_tasks), "tasks", promise=promise),
        f"{name}: longest task": Figure.of(taken.longest, "ms"),
        f"{name}: whole": Figure.of(taken.total, "ms"),
    }


def _sizes(sizes: dict[str, dict[str, int]]) -> dict[str, Figure]:
    """What a page loads before it can take part, in thousands of bytes."""
    theirs = sizes["divviup"]["gzip"]
    visit = sizes["visit"]["gzip"]
    figures = {
        "size, gzip -9, Divvi Up": Figure.of(theirs / 1_000, "kB"),
        "size, gzip -9, modules of a visit without a round": Figure.of(visit / 1_000, "kB"),
    }
    for name, words in (("script", "one script"), ("modules", "modules")):
        mine = sizes[name]["gzip"]
        figures[f"size, gzip -9, {words}"] = Figure.of(mine / 1_000, "kB", promise=KILOBYTES)
        figures[f"size, {words} to Divvi Up"] = Figure.of(mine / theirs, "x")
    return figures


@asynccontextmanager
async def _site() -> AsyncIterator[str]:
    """An origin with a page for each kernel; the kernel is chosen by what the page may run."""
    app = web.Application()
    for name, rules in _POLICIES.items():
        headers = _HEADERS | {"Content-Security-Policy": rules}
        body = (BUILT / "index.html").read_bytes()
        app.router.add_get(f"/{name}", _serve(body, headers))
    app.router.add_static("/sdk", DIST)
    app.router.add_static("/", BUILT)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _serve(body: bytes, headers: dict[str, str]) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/html", headers=headers)

    return answer


def _settings(folder: Path, origin: str) -> Settings:
    return Settings(
        folder=folder,
        scopes=(_SCOPE,),
        cohort_min=COHORT_MIN,
        policy=Policy(cohort_min=COHORT_MIN),
        allowed_origins=(origin,),
    )


async def _open(stack: Stack, slots: int) -> dict[str, Any]:
    """Opens a round of so many slots, alone in the list. Returns what a page gives to `init`."""
    api = Api(stack.deployment)
    for document in (await api.admin_async("GET", "/admin/v1/rounds"))["rounds"]:
        if document["phase"] == "open":
            await api.admin_async("POST", f"/admin/v1/rounds/{document['round']}/close")
    name = f"histogram-{slots}"
    query = {
        "name": name,
        "sql": f"SELECT HISTOGRAM(v, {slots}) FROM visit",
        "registry": _REGISTRY,
        "scope": _SCOPE,
        "epsilon": "1",
        "delta": "1e-8",
        "cohort_min": COHORT_MIN,
        "cohort_max": 10_000,
    }
    await api.admin_async("POST", "/admin/v1/queries", query)
    await api.admin_async("POST", "/admin/v1/rounds", {"query": name, "duration_s": 3_600})
    pinned = stack.client_config.pinned
    return {
        "endpoint": pinned.endpoint,
        "config": {
            "collector": pinned.collector.hex(),
            "helpers": [identity.hex() for identity in pinned.helpers],
        },
        "policy": {"cohortMin": COHORT_MIN},
    }


async def _pages(browser: Browser, pages: int, address: str, name: str, *words: Any) -> Pages:
    """Fresh visitors, one after the other, in whose page the function `name` runs."""
    taken = Pages([], [], [])
    for _ in range(pages):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(address)
        found = await page.evaluate(
            "async ([name, words]) => (await import('/page.js'))[name](...words)",
            [name, list(words)],
        )
        await context.close()
        if not set(found["outcomes"]) <= {"accepted"}:
            raise RuntimeError(f"a page's report was not accepted: {found['outcomes']}")
        taken.longest.append(found["longest"])
        taken.total.append(found["milliseconds"])
        taken.long_tasks.append(found["longTasks"])
    return taken


if __name__ == "__main__":
    main()
