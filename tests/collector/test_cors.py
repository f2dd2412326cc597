"""What a page of another origin meets: every step of the browser client, without a preflight."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from collector.store import MemoryStore
from tests.collector.builders import plain_report
from tests.collector.door import Door, door

SITE = "https://shop.example"
STRANGER = "https://evil.example"


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Door]:
    """A collector that lets the pages of one site in."""
    async with door(tmp_path, MemoryStore(), allowed_origins=[SITE]) as opened:
        yield opened


def readable_by(answer: aiohttp.ClientResponse, origin: str) -> bool:
    """Whether a browser hands this answer to a page that sent no credentials."""
    return answer.headers.get("Access-Control-Allow-Origin") == origin


async def test_a_page_reads_the_list_and_its_window(it: Door) -> None:
    """A GET without headers of its own needs no preflight; the pace is exposed."""
    url = it.node.public_url + "/v1/rounds"
    async with it.session.get(url, headers={"Origin": SITE}) as answer:
        assert answer.status == 200
        assert readable_by(answer, SITE)
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Dandelion-Window", "Retry-After"} <= set(exposed)
        assert answer.headers["Vary"] == "Origin"


async def test_a_page_sends_its_report_without_asking_first(it: Door) -> None:
    """The report arrives as text, which needs no preflight, and the page learns that it counts."""
    body = plain_report(it.d, 0).encode()
    headers = {"Origin": SITE, "Content-Type": "text/plain"}
    for status in (201, 200):
        async with it.session.post(
            it.node.public_url + it.path, data=body, headers=headers
        ) as answer:
            assert answer.status == status
            assert readable_by(answer, SITE)


async def test_a_page_reads_why_it_was_refused(it: Door) -> None:
    """A final refusal that could not be read would be tried again until the round expires."""
    headers = {"Origin": SITE, "Content-Type": "text/plain"}
    url = it.node.public_url + it.path
    async with it.session.post(url, data=b"short", headers=headers) as answer:
        assert answer.status == 400
        assert readable_by(answer, SITE)
        assert answer.content_type == "application/problem+json"


async def test_a_body_without_a_type_is_refused(it: Door) -> None:
    """A blob without a type has no Content-Type at all, so the client names one."""
    body = plain_report(it.d, 0).encode()
    async with it.session.post(
        it.node.public_url + it.path,
        data=body,
        headers={"Origin": SITE},
        skip_auto_headers=["Content-Type"],
    ) as answer:
        assert answer.status == 415


async def test_a_stranger_may_send_but_not_read(it: Door) -> None:
    """Whoever holds a report may hand it in; the control to what the listed site can read."""
    body = plain_report(it.d, 0).encode()
    headers = {"Origin": STRANGER, "Content-Type": "text/plain"}
    async with it.session.post(it.node.public_url + it.path, data=body, headers=headers) as answer:
        assert answer.status == 201
        assert not readable_by(answer, STRANGER)
    async with it.session.get(it.node.public_url + "/v1/rounds", headers=headers) as answer:
        assert not readable_by(answer, STRANGER)


async def test_nobody_is_asked_for_credentials(it: Door) -> None:
    """No answer allows them, none sets a cookie, and neither does a preflight."""
    body = plain_report(it.d, 0).encode()
    asking = {"Access-Control-Request-Method": "POST"}
    for method, path, data, more in (
        ("GET", "/v1/rounds", None, {}),
        ("POST", it.path, body, {"Content-Type": "text/plain"}),
        ("OPTIONS", it.path, None, asking),
    ):
        headers = {"Origin": SITE} | more
        url = it.node.public_url + path
        async with it.session.request(method, url, data=data, headers=headers) as answer:
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert "Set-Cookie" not in answer.headers
