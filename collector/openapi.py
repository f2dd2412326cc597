"""The public interface as OpenAPI 3.1: the same sentences as docs/protocol.md section 10.

`tests/collector/test_openapi.py` holds real answers against it.
"""

from functools import cache
from typing import Any, Final

from dandelion.errors import TOKENS
from dandelion.params import (
    MEDIA_ENVELOPE,
    MEDIA_PROBLEM,
    MEDIA_RELEASE,
    MEDIA_REPORT,
    MEDIA_REPORT_SAFELISTED,
    PROBLEM_TYPE_PREFIX,
    WINDOW_HEADER,
)

Json = dict[str, Any]

# What each operation may refuse with, beside `internal`.
REPORT_TOKENS: Final = [
    *("bad_request", "bad_length", "bad_version", "wrong_round", "bad_key", "truncated"),
    *("length_required", "encoding_refused", "media_type", "request_timeout"),
    *("not_found", "unknown_round", "not_open", "round_closed", "report_conflict", "round_damaged"),
    *("store_unavailable", "overloaded", "draining"),
]
_ROUND_TOKENS: Final = ["not_found", "unknown_round", "store_unavailable"]
_RELEASE_TOKENS: Final = ["not_found", "unknown_round", "not_released"]


@cache
def document() -> Json:
    """The document. The same object every time; nobody may change it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dandelion collector, public interface",
            "version": "1",
            "description": "Open rounds, reports, and what was released. docs/protocol.md "
            "section 10 is normative.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": {
                "round": {
                    "name": "round",
                    "in": "path",
                    "required": True,
                    "description": "The round id: the first 16 bytes of ctx.",
                    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                }
            },
            "headers": {
                "window": {
                    "description": "Come back at a time drawn uniformly from between these two.",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[0-9]+ [0-9]+$"},
                },
                "retry": {
                    "description": "Seconds to wait before sending the same bytes again.",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
        },
    }


def _paths() -> Json:
    return {
        "/v1/rounds": {"get": _json("listRounds", "Open rounds", "Rounds")},
        "/v1/rounds/{round}": {
            "get": _bytes("getEnvelope", "A round's envelope", MEDIA_ENVELOPE, _ROUND_TOKENS)
        },
        "/v1/rounds/{round}/reports": {"post": _report()},
        "/v1/queries": {"get": _json("listQueries", "What is asked", "Queries")},
        "/v1/releases": {"get": _json("listReleases", "Ended rounds, newest first", "Releases")},
        "/v1/releases/{round}": {
            "get": _bytes("getRelease", "A round's release", MEDIA_RELEASE, _RELEASE_TOKENS)
        },
        "/v1/releases/{round}/table": {
            "get": _json("getTable", "A release as a table", "Table", _RELEASE_TOKENS)
        },
        "/openapi.json": {"get": _plain("getOpenApi", "This document", {"type": "object"})},
        "/livez": {"get": _plain("getLive", "Whether the process runs", _flag("live"))},
        "/readyz": {"get": _ready()},
    }


def _report() -> Json:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "postReport",
        "summary": "Send one report",
        "description": "The body is exactly the report, docs/protocol.md section 5. Content-Length "
        "is required; chunked bodies and content codings are refused. Answered when the report is "
        "durable; sending the same bytes again is harmless.",
        "parameters": [{"$ref": "#/components/parameters/round"}],
        "requestBody": {
            "required": True,
            "content": {MEDIA_REPORT: binary, MEDIA_REPORT_SAFELISTED: binary},
        },
        "responses": {
            "201": _content("Accepted", "Result", {"window": True}),
            "200": _content("The same report was accepted before", "Result", {"window": True}),
            **_problems(REPORT_TOKENS),
        },
    }


def _json(operation: str, summary: str, schema: str, tokens: list[str] | None = None) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        **_round_parameter(tokens),
        "responses": {
            "200": _content(summary, schema, {"window": True}),
            **_problems(tokens or []),
        },
    }


def _bytes(operation: str, summary: str, media: str, tokens: list[str]) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        **_round_parameter(tokens),
        "responses": {
            "200": {
                "description": summary,
                "headers": _headers(window=True),
                "content": {media: {"schema": {"type": "string", "format": "binary"}}},
            },
            **_problems(tokens),
        },
    }


def _plain(operation: str, summary: str, schema: Json) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": schema}}},
        },
    }


def _ready() -> Json:
    content = {"application/json": {"schema": _flag("ready")}}
    return {
        "operationId": "getReady",
        "summary": "Whether reports can be taken now",
        "responses": {
            "200": {"description": "Yes", "content": content},
            "503": {"description": "No", "content": content},
        },
    }


def _flag(name: str) -> Json:
    return {"type": "object", "required": [name], "properties": {name: {"type": "boolean"}}}


def _round_parameter(tokens: list[str] | None) -> Json:
    return {"parameters": [{"$ref": "#/components/parameters/round"}]} if tokens else {}


def _content(description: str, schema: str, headers: dict[str, bool]) -> Json:
    return {
        "description": description,
        "headers": _headers(**headers),
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _headers(*, window: bool = False, retry: bool = False) -> Json:
    headers: Json = {}
    if window:
        headers[WINDOW_HEADER] = {"$ref": "#/components/headers/window"}
    if retry:
        headers["Retry-After"] = {"$ref": "#/components/headers/retry"}
    return headers


def _problems(tokens: list[str]) -> Json:
    by_status: dict[int, list[str]] = {}
    for token in [*tokens, "internal"]:
        by_status.setdefault(TOKENS[token].status, []).append(token)
    return {
        str(status): {
            "description": "; ".join(f"`{it}`: {TOKENS[it].title}" for it in found),
            "headers": _headers(window=True, retry=status == 503),
            "content": {
                MEDIA_PROBLEM: {
                    "schema": {
                        "allOf": [
                            {"$ref": "#/components/schemas/Problem"},
                            {
                                "properties": {
                                    "type": {"enum": [PROBLEM_TYPE_PREFIX + it for it in found]}
                                }
                            },
                        ]
                    }
                }
            },
        }
        for status, found in sorted(by_status.items())
    }


def _object(properties: Json, optional: tuple[str, ...] = ()) -> Json:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": False,
    }


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _schemas() -> Json:
    text: Json = {"type": "string"}
    number: Json = {"type": ["number", "null"]}
    count: Json = {"type": "integer", "minimum": 0}
    seconds: Json = {"type": "integer", "minimum": 0, "description": "Unix time, seconds"}
    round_id: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
    decimal: Json = {"type": "string", "pattern": "^[0-9.]+$"}
    return {
        "Problem": _object(
            {
                "type": {"type": "string", "pattern": f"^{PROBLEM_TYPE_PREFIX}[a-z_]+$"},
                "title": text,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": text,
            },
            ("detail",),
        ),
        "Result": _object({"result": {"enum": ["accepted", "duplicate"]}}),
        "Rounds": _object(
            {
                "now": seconds,
                "rounds": _list(
                    _object(
                        {
                            "round": round_id,
                            "query": text,
                            "opens": seconds,
                            "closes": seconds,
                            "envelope": {"type": "string", "contentEncoding": "base64"},
                        }
                    )
                ),
            }
        ),
        "Queries": _object(
            {
                "queries": _list(
                    _object(
                        {
                            "name": text,
                            "description": text,
                            "sql": text,
                            "words": text,
                            "epsilon": decimal,
                            "delta": decimal,
                            "scope": text,
                            "cohort_min": count,
                            "rows_max": count,
                            "slots": count,
                            "report_bytes": count,
                            "created": seconds,
                        }
                    )
                )
            }
        ),
        "Releases": _object(
            {
                "releases": _list(
                    _object(
                        {
                            "round": round_id,
                            "query": text,
                            "phase": {"enum": ["released", "abandoned", "damaged"]},
                            "opens": seconds,
                            "closes": seconds,
                            "ended": seconds,
                            "reason": text,
                            "reports": count,
                        },
                        ("reason", "reports"),
                    )
                )
            }
        ),
        "Table": _object(
            {
                "query": text,
                "group": {"type": ["string", "null"]},
                "reports": count,
                "cells": _list(
                    _object(
                        {
                            "group": {"type": ["string", "null"]},
                            "name": text,
                            "bin": {
                                "type": ["array", "null"],
                                "items": {"type": "integer"},
                                "minItems": 2,
                                "maxItems": 2,
                            },
                            "estimate": number,
                            "std_error": number,
                            "ci_low": number,
                            "ci_high": number,
                            "withheld": {"type": "boolean"},
                            "reason": text,
                        }
                    )
                ),
                "round": round_id,
                "sql": text,
                "epsilon": {"type": "number"},
                "delta": {"type": "number"},
                "shards": count,
                "opens": seconds,
                "closes": seconds,
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            }
        ),
    }
