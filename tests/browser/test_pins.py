"""A page whose collector shows it something else than it pinned sends nothing."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext

from dandelion.descriptor import Descriptor, Envelope, read_descriptor, sign_descriptor
from dandelion.encoding import Reader
from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options, reports
from tests.browser.site import Site
from tests.client.builders import Deployment, Party, seed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Shown:
    """What a collector lists, and the token with which a page refuses it."""

    envelope: bytes
    token: str
    # The round that the list says it is, if that is a lie.
    round_id: bytes = b""


def honest() -> Shown:
    """The control: nothing is refused."""
    return Shown(DEPLOYMENT.envelope(open_now()), "")


def swapped_mask_key() -> Shown:
    """The collector puts a key of its own in a helper's place and signs; the helper has not."""
    real = open_now()
    first, second = real.helpers
    forged = replace(real, helpers=(replace(first, mask_key=Party("c").entry(1).mask_key), second))
    return Shown(with_signature(forged, real, DEPLOYMENT.collector_seed), "bad_signature")


def swapped_helper() -> Shown:
    """All have signed, but one of them is nobody that the page knows."""
    other = Deployment(helpers=(Party("a"), Party("c")))
    return Shown(other.envelope(of_deployment(other)), "pin_mismatch")


def one_more_helper() -> Shown:
    """The known helpers and one more."""
    other = Deployment(helpers=(Party("a"), Party("b"), Party("c")))
    return Shown(other.envelope(of_deployment(other)), "pin_mismatch")


def another_collector() -> Shown:
    """The page's helpers serve somebody else."""
    other = Deployment(collector_seed=seed("somebody else"))
    return Shown(other.envelope(of_deployment(other)), "pin_mismatch")


def less_noise() -> Shown:
    """Everybody has signed half the noise."""
    real = open_now()
    quiet = replace(real, noise_var=real.noise_var // 2)
    return Shown(DEPLOYMENT.envelope(quiet), "floor_noise")


def smaller_cohort() -> Shown:
    """Everybody has signed a smaller crowd."""
    return Shown(DEPLOYMENT.envelope(open_now(cohort_min=10)), "floor_cohort")


def another_descriptor() -> Shown:
    """The signatures of one round under the descriptor of another one."""
    real = open_now()
    other = replace(real, closes=real.closes + 1)
    signatures = Envelope.decode(DEPLOYMENT.envelope(real)).signatures
    return Shown(Envelope(other, signatures).encode(), "bad_signature")


def another_round() -> Shown:
    """One round under the name of another one, to which the report would go."""
    envelope = DEPLOYMENT.envelope(open_now())
    return Shown(envelope, "wrong_round", round_id=seed("another")[:16])


def flipped_bit() -> Shown:
    """One bit of the last signature is another one."""
    envelope = DEPLOYMENT.envelope(open_now())
    return Shown(envelope[:-40] + bytes([envelope[-40] ^ 1]) + envelope[-39:], "bad_signature")


CASES: Mapping[str, Callable[[], Shown]] = {
    made.__name__: made
    for made in (
        honest,
        swapped_mask_key,
        swapped_helper,
        one_more_helper,
        another_collector,
        less_noise,
        smaller_cohort,
        another_descriptor,
        another_round,
        flipped_bit,
    )
}


def of_deployment(deployment: Deployment) -> Descriptor:
    """A round of another deployment that is open now."""
    now = open_now()
    return deployment.descriptor(opens=now.opens, closes=now.closes, expires=now.expires)


def with_signature(forged: Descriptor, real: Descriptor, signer: bytes) -> bytes:
    """The forged descriptor with one new signature, the first, and the others of the real one."""
    old = Envelope.decode(DEPLOYMENT.envelope(real)).signatures
    return Envelope(forged, (sign_descriptor(forged, signer), *old[1:])).encode()


@pytest.mark.parametrize("case", CASES)
async def test_nothing_is_uploaded_for_what_was_not_pinned(
    context: BrowserContext, case: str
) -> None:
    """Neither while the page is open, nor when it asks to send, nor when it is left."""
    shown = CASES[case]()
    round_id = shown.round_id or read_descriptor(Reader(shown.envelope)).round_id

    async def listing(_: web.Request) -> web.Response:
        envelope = base64.b64encode(shown.envelope).decode()
        return web.json_response({"rounds": [{"round": round_id.hex(), "envelope": envelope}]})

    rows = [{"carrier": "UA", "dep_delay": 7}]
    async with Site() as site, HostileCollector() as collector:
        collector.list_rounds = listing
        given = options(collector.endpoint)
        page = await context.new_page()
        await page.goto(site.origins[0])
        await page.evaluate("([o, r]) => visit(o, 'flight', r)", [given, rows])
        told: list[dict[str, Any]] = await page.evaluate("receipts")
        # The page is left and comes back, asks at once, and is left again.
        await page.reload()
        await page.evaluate("([o, r]) => visit(o, 'flight', r)", [given, rows])
        await page.evaluate("client.flush({ early: true })")
        troubles = await page.evaluate("troubles")
        await page.goto("about:blank")
        seen = list(collector.seen)
    assert [each["token"] for each in told] == [shown.token]
    assert troubles == []
    assert sum(each.path == "/v1/rounds" for each in seen) == 2
    bodies = {each.body for each in reports(seen)}
    assert len(bodies) == (0 if shown.token else 1)
