"""The entry points that have no document: a dedicated worker, and an extension's service worker."""

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import BrowserContext

from tests.browser.chromium import chromium_with_extension
from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options
from tests.browser.site import Site
from tests.client.builders import plan_of, unmasked

ROW: Final = {"carrier": "UA", "dep_delay": 7}
# Nothing is held where nobody leaves: what a report holds is what was recorded before its round.
RECORD: Final = "(row) => client.record('flight', row)"
SEND: Final = """async () => {
  await client.flush({ early: true });
  return [await client.receipts(), await client.explain("carrier-delay"), client.faults()];
}"""
IN_A_WORKER: Final = """([code, argument]) => new Promise((resolve, reject) => {
  window.worker ??= new Worker("/worker_page.js", { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => reject(new Error(message));
  worker.postMessage([code, argument]);
})"""
BACKGROUND: Final = """import { init } from "./sdk/extension.js";
self.client = init(OPTIONS);
"""
WITH_WASM: Final = {"extension_pages": "script-src 'self' 'wasm-unsafe-eval'"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_dedicated_worker_contributes_one_report(context: BrowserContext) -> None:
    """The same report as a page's, made and sent where there is no document."""
    async with Site() as site, HostileCollector() as collector:
        page = await context.new_page()
        await page.goto(site.origins[0])

        async def run(code: str, argument: object = None) -> Any:
            return await page.evaluate(IN_A_WORKER, [code, argument])

        await run("(options) => { self.client = init(options); }", options(collector.endpoint))
        await contributes_once(run, collector)
        assert await page.evaluate("troubles") == []


@pytest.mark.parametrize("policy", [WITH_WASM, None])
async def test_an_extension_contributes_one_report(
    package: Path, tmp_path: Path, policy: dict[str, str] | None
) -> None:
    """A service worker of Manifest V3, whether its manifest allows WebAssembly or says nothing."""
    async with HostileCollector() as collector:
        folder = extension(package, tmp_path / "extension", collector.endpoint, policy)
        async with chromium_with_extension(folder, tmp_path / "profile") as context:
            found = context.service_workers
            worker = found[0] if found else await context.wait_for_event("serviceworker")
            await contributes_once(worker.evaluate, collector)
            alarms = await worker.evaluate("chrome.alarms.getAll()")
        # The next question for rounds wakes the worker, which may have been ended by then.
        assert [each["name"] for each in alarms] == [f"dandelion {collector.endpoint}"]


async def contributes_once(
    run: Callable[[str, object], Awaitable[Any]], collector: HostileCollector
) -> None:
    """Records a row, then meets a round twice; `run` evaluates a function beside the client."""
    descriptor = open_now()
    await run(RECORD, ROW)
    collector.envelopes.append(DEPLOYMENT.envelope(descriptor))
    for _ in range(2):
        [receipt], explained, faults = await run(SEND, None)
    assert receipt["outcome"] == "accepted"
    assert faults == {}
    assert "carrier" in explained
    [body] = collector.bodies
    vector = plan_of(descriptor).execute([ROW], lambda count, most: list(range(most)))
    assert unmasked(descriptor, body) == vector.tolist()


def extension(package: Path, folder: Path, endpoint: str, policy: dict[str, str] | None) -> Path:
    """An unpacked extension of the fewest files."""
    shutil.copytree(package, folder / "sdk")
    manifest: dict[str, Any] = {
        "manifest_version": 3,
        "name": "A client of a collector",
        "version": "1",
        "background": {"service_worker": "background.js", "type": "module"},
        "permissions": ["alarms"],
        "host_permissions": [f"{endpoint}/*"],
    }
    if policy is not None:
        manifest["content_security_policy"] = policy
    (folder / "manifest.json").write_text(json.dumps(manifest))
    given = json.dumps(options(endpoint))
    (folder / "background.js").write_text(BACKGROUND.replace("OPTIONS", given))
    return folder
