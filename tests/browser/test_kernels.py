"""The kernels in a real page: the published vectors, and which of the two a page gets."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from dandelion.descriptor import Descriptor
from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options
from tests.browser.site import HERE, Site
from tests.client.builders import plan_of, unmasked

VECTORS = HERE.parent / "vectors"
RUN = """async ([kernel, files]) => {
  const { fallback, loadKernel, runVectors } = await import("/files/bundle.js");
  const used = kernel === "typescript" ? fallback : await loadKernel([1, 2]);
  return [used.name, runVectors(used, files)];
}"""
CONTRIBUTE = {
    "module": """async ([options, rows]) => {
      await visit(options, "flight", rows);
      await client.flush();
    }""",
    "classic": """async ([options, rows]) => {
      const client = dandelion.init(options);
      for (const row of rows) await client.record("flight", row);
      await client.flush();
    }""",
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels and the runner of the vectors, as one script for a page."""
    node = shutil.which("node")
    assert node is not None, "Node.js is needed to bundle the page: see `make sdk`"
    path = tmp_path_factory.mktemp("bundle") / "bundle.js"
    subprocess.run([node, HERE / "bundle.mjs", path], check=True, timeout=60)
    return path


def vectors() -> dict[str, Any]:
    """The published files by name."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(VECTORS.glob("*.json"))}


async def open_page(context: BrowserContext, url: str) -> Page:
    page = await context.new_page()
    await page.goto(url)
    return page


@pytest.mark.parametrize("kernel", ["wasm", "typescript"])
async def test_every_vector_has_the_output_or_the_token_that_the_file_says(
    context: BrowserContext, bundle: Path, kernel: str
) -> None:
    """Both kernels, every published vector, valid and invalid."""
    async with Site(files={"bundle.js": bundle}) as site:
        page = await open_page(context, site.origins[0])
        assert await page.evaluate(RUN, [kernel, vectors()]) == [kernel, []]


async def test_a_wrong_vector_is_noticed_in_the_page(context: BrowserContext, bundle: Path) -> None:
    """The runner that finds nothing wrong would find something."""
    files = vectors()
    files["mask"][0]["output"]["report"] = "00" + files["mask"][0]["output"]["report"][2:]
    async with Site(files={"bundle.js": bundle}) as site:
        page = await open_page(context, site.origins[0])
        _, failures = await page.evaluate(RUN, ["wasm", files])
    assert len(failures) == 1


@pytest.mark.parametrize("script", ["module", "classic"])
@pytest.mark.parametrize("kernel", ["wasm", "typescript"])
async def test_the_policy_of_a_page_decides_which_kernel_runs(
    context: BrowserContext, kernel: str, script: str
) -> None:
    """With `'wasm-unsafe-eval'` the other kernel is never fetched; without, it does the same."""
    path = ("/" if kernel == "wasm" else "/strict") + ("" if script == "module" else "-classic")
    fetched = await contributes(context, open_now(), path, script)
    assert fetched == (kernel == "typescript")


async def test_a_round_of_the_other_suite_gets_a_report(context: BrowserContext) -> None:
    """AES is in one kernel only, which is fetched for it wherever WebAssembly may run."""
    assert await contributes(context, open_now(suite=2), "/", "module")


async def contributes(
    context: BrowserContext, descriptor: Descriptor, path: str, script: str
) -> bool:
    """Whether a page that sends the right report has fetched the kernel in TypeScript."""
    rows = [{"carrier": "UA", "dep_delay": 7}]
    async with Site() as site, HostileCollector(DEPLOYMENT.envelope(descriptor)) as collector:
        page = await open_page(context, site.origins[0] + path)
        await page.evaluate(CONTRIBUTE[script], [options(collector.endpoint), rows])
        [body] = collector.bodies
    vector = plan_of(descriptor).execute(rows, lambda count, most: list(range(most)))
    assert unmasked(descriptor, body) == vector.tolist()
    return any("fallback" in each for each in site.paths)
