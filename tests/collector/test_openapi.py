"""The OpenAPI document is valid, and real answers are as it says."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

from collector.handlers import public_routes
from collector.openapi import REPORT_TOKENS, document
from collector.store import LanePhase, MemoryStore
from dandelion.errors import TOKENS
from dandelion.params import PROBLEM_TYPE_PREFIX
from dandelion.round import Phase
from tests.collector.builders import FaultyStore, plain_report
from tests.collector.door import door, round_for
from tests.collector.rig import QUERY, rig


def judge(
    method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """Holds an answer against the document; returns the response object that covers it."""
    whole = document()
    operation = whole["paths"][path][method.lower()]
    assert str(status) in operation["responses"], (path, status, body)
    response: dict[str, Any] = operation["responses"][str(status)]
    media = headers["Content-Type"].partition(";")[0]
    schema = response["content"][media]["schema"]
    if media.endswith("json"):
        jsonschema.Draft202012Validator(schema | {"components": whole["components"]}).validate(
            json.loads(body)
        )
    for name, wanted in response.get("headers", {}).items():
        found = whole["components"]["headers"][wanted["$ref"].rpartition("/")[2]]
        if found.get("required") or name in headers:
            value: object = headers[name]
            if found["schema"]["type"] == "integer":
                value = int(headers[name])
            jsonschema.Draft202012Validator(found["schema"]).validate(value)
    return response


def test_the_document_is_valid() -> None:
    """OpenAPI 3.1, by a validator that knows its schema."""
    OpenAPIV31SpecValidator(document()).validate()


def test_every_route_is_described_and_no_other() -> None:
    """What is served and what is described are the same."""
    described = {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
    }
    assert described == {(route.method, route.path) for route in public_routes()}


def test_every_described_problem_is_one() -> None:
    """Each problem type stands in the protocol's list, under its own status."""
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                content = response["content"].get("application/problem+json")
                for kind in _kinds(content):
                    assert TOKENS[kind.removeprefix(PROBLEM_TYPE_PREFIX)].status == int(status), (
                        path
                    )


def _kinds(content: dict[str, Any] | None) -> Iterator[str]:
    if content is not None:
        yield from content["schema"]["allOf"][1]["properties"]["type"]["enum"]


async def test_answers_of_a_whole_round(tmp_path: Path) -> None:
    """Every route, before and after a release: each answer is as described."""
    async with rig(tmp_path, MemoryStore()) as it:
        paths = [path for path, each in document()["paths"].items() if "get" in each]

        async def ask_all(round_id: str) -> dict[str, int]:
            found = {}
            for path in paths:
                url = it.node.public_url + path.replace("{round}", round_id)
                async with it.session.get(url) as response:
                    body = await response.read()
                    judge("GET", path, response.status, response.headers, body)
                    found[path] = response.status
            return found

        await it.admin("POST", "queries", QUERY)
        assert (await ask_all("0" * 32))["/v1/rounds/{round}"] == 404
        round_id, d = await it.open()
        assert (await ask_all(round_id))["/v1/releases/{round}"] == 404
        await it.send(d, range(3))
        it.clock.reach(d.closes)
        await it.until(round_id, "released")
        assert set((await ask_all(round_id)).values()) == {200}


async def test_answers_to_reports(tmp_path: Path) -> None:
    """Accepted, duplicate, and every refusal that can be brought about: each as described."""
    store = FaultyStore()
    met = set()
    async with door(tmp_path, store, limits={"answer_s": 0.1, "body_s": 0.1}) as it:
        report = plain_report(it.d, 1)
        body = report.encode()

        async def post(data: bytes, path: str | None = None, **headers: str) -> None:
            status, answer, found = await it.post(data, path, **headers)
            template = "/v1/rounds/{round}/reports"
            judge("POST", template, status, found, json.dumps(answer).encode())
            met.add(str(answer.get("type", answer.get("result"))).rpartition(":")[2])

        await post(body)
        await post(body)
        await post(replace(report, payload=plain_report(it.d, 2).payload).encode())
        await post(body[:-1])
        await post(b"\x02" + body[1:])
        await post(body[:1] + bytes(16) + body[17:])
        await post(body[:17] + bytes(32) + body[49:])
        await post(body, Content_Encoding="gzip")
        await post(body, Content_Type="image/png")
        await post(body, Sec_Fetch_Mode="navigate")
        await post(body, f"/v1/rounds/{'0' * 32}/reports")
        await post(body, "/v1/rounds/%00/reports")
        store.blocked = True
        await post(plain_report(it.d, 3).encode())
        store.blocked = False
        it.node.ingest.draining = True
        await post(body)
        it.node.ingest.draining = False
        it.node.ingest.waiting_reports = 10**9
        await post(body)
        it.node.ingest.waiting_reports = 0
        early = round_for(replace(it.d, opens=it.d.opens + 100))
        await it.move(Phase.SEALED, LanePhase.SEALED)
        await post(plain_report(it.d, 9).encode())
        await it.move(Phase.DAMAGED)
        await post(body)
        await it.put(early)
        await post(plain_report(it.d, 1).encode())
    # What needs a raw socket is in test_http_guard.
    assert set(REPORT_TOKENS) - met == {"length_required", "truncated", "request_timeout"}
