"""The admin interface: who may do what, what may be asked, and what helpers refuse."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from collector import admin, tokens
from collector.admin import ROUTES, Route
from collector.database import FILE
from collector.store import MemoryStore
from collector.tokens import LIFETIME_MAX_S, Scope, issue, revoke
from dandelion.verify import verify_release
from tests.collector.rig import QUERY, Rig, parties, rig
from tests.oracle_membership import assert_exactly_once

# The matrix: a route that is not in here fails, and so does one whose scope changes unnoticed.
MATRIX = {
    "GET /livez": None,
    "GET /readyz": None,
    "GET /metrics": None,
    "GET /admin/v1/queries": "round:read",
    "POST /admin/v1/queries": "query:write",
    "GET /admin/v1/queries/{query}": "round:read",
    "GET /admin/v1/rounds": "round:read",
    "POST /admin/v1/rounds": "round:write",
    "GET /admin/v1/rounds/{round}": "round:read",
    "POST /admin/v1/rounds/{round}/close": "round:close",
    "GET /admin/v1/results": "result:read",
    "GET /admin/v1/results/{round}": "result:read",
    "GET /admin/v1/results/{round}/release": "result:read",
    "GET /admin/v1/ledger": "audit:read",
}


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Rig]:
    """A running collector over a store in memory."""
    async with rig(tmp_path, MemoryStore()) as running:
        yield running


def token_for(it: Rig, *scopes: Scope, lifetime_s: int = 60, now: float | None = None) -> str:
    """A token with these scopes."""
    at = int(time.time() if now is None else now)
    return issue(it.node.config.state_dir, "t", scopes, lifetime_s=lifetime_s, now=at)


async def call(it: Rig, route: Route, authorization: str | None) -> int:
    """Status of a request for a route, with nothing sensible in it."""
    path = route.path.replace("{round}", "0" * 32).replace("{query}", "nothing")
    headers = {} if authorization is None else {"Authorization": authorization}
    url = it.node.admin_url + path
    async with it.session.request(route.method, url, headers=headers) as response:
        await response.read()
        return response.status


def test_every_route_is_in_the_matrix() -> None:
    """Routes of the application, routes of the table, and the matrix above are the same."""
    table = {f"{route.method} {route.path}": route.scope for route in ROUTES}
    assert table == MATRIX


def test_the_application_serves_the_table_and_nothing_else(it: Rig) -> None:
    """No handler is reachable that the door does not know."""
    made = {(route.method, route.path) for route in admin.admin_routes()}
    assert made == {(route.method, route.path) for route in ROUTES}


async def test_each_scope_opens_its_routes_and_no_other(it: Rig) -> None:
    """Every route with every scope: 403 unless it is the one in the matrix."""
    for scope in Scope:
        token = token_for(it, scope)
        for route in ROUTES:
            status = await call(it, route, f"Bearer {token}")
            allowed = MATRIX[f"{route.method} {route.path}"] in (None, scope)
            assert (status != 403) == allowed, (scope, route)
            assert status != 401
            assert status < 500


async def test_nobody_gets_in_without_a_valid_token(it: Rig) -> None:
    """No token, another kind, a wrong secret, an expired or a revoked one: 401."""
    good = token_for(it, *Scope)
    head, number, secret = good.split("_")
    expired = token_for(it, *Scope, now=time.time() - 100, lifetime_s=50)
    revoked = token_for(it, *Scope)
    assert revoke(it.node.config.state_dir, revoked.split("_")[1])
    wrong = [
        None,
        "",
        "Bearer",
        f"Basic {good}",
        "Bearer nonsense",
        f"Bearer {head}_{number}_{secret[:-1]}{'0' if secret[-1] != '0' else '1'}",
        f"Bearer {head}_{'0' * 16}_{secret}",
        f"Bearer {good}0",
        f"Bearer {expired}",
        f"Bearer {revoked}",
    ]
    for route in ROUTES:
        for authorization in wrong:
            status = await call(it, route, authorization)
            assert (status == 401) == (route.scope is not None), (route, authorization)
        assert await call(it, route, f"Bearer {good}") != 401


async def test_control_a_door_that_asks_for_no_scope_lets_anybody_in(
    it: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the table emptied of scopes the matrix test above would fail."""
    monkeypatch.setattr(admin, "_SCOPES", dict.fromkeys(admin._SCOPES))
    assert await call(it, ROUTES[3], None) == 200


async def test_a_path_without_a_route_is_nobody_s(it: Rig) -> None:
    """Deny by default: without a token 401, with one 404."""
    route = Route("GET", "/admin/v1/nothing", admin.livez, None)
    assert await call(it, route, None) == 401
    assert await call(it, route, f"Bearer {it.token}") == 404


async def test_pages_of_other_sites_are_refused(it: Rig) -> None:
    """A browser that says that the request comes from another site is refused, token or not."""
    headers = {"Authorization": f"Bearer {it.token}", "Sec-Fetch-Site": "cross-site"}
    url = f"{it.node.admin_url}/admin/v1/rounds"
    async with it.session.get(url, headers=headers) as response:
        assert response.status == 403


async def test_tokens_are_not_stored(it: Rig) -> None:
    """Neither the database nor its log holds a token; the hash in it is no token."""
    token = token_for(it, Scope.AUDIT_READ)
    folder = it.node.config.state_dir
    everything = b"".join(path.read_bytes() for path in sorted(folder.glob(f"{FILE}*")))
    assert token.split("_")[2].encode() not in everything
    assert token.split("_")[1].encode() in everything


@pytest.mark.parametrize("lifetime_s", [0, -1, LIFETIME_MAX_S + 1])
def test_a_token_has_an_end(tmp_path: Path, lifetime_s: int) -> None:
    """No token without an expiry, and none that lives longer than a year."""
    with pytest.raises(ValueError, match="lifetime"):
        issue(tmp_path, "t", [Scope.AUDIT_READ], lifetime_s=lifetime_s, now=1)
    with pytest.raises(ValueError, match="scope"):
        issue(tmp_path, "t", [], lifetime_s=60, now=1)


async def test_a_token_notes_the_day_of_its_use_only(it: Rig) -> None:
    """When a token was used is kept to the day."""
    token = token_for(it, Scope.AUDIT_READ)
    for now in (100_000.0, 100_001.0, 200_000.0):
        found = partial(tokens.holder_of, token=token, now=int(now))
        assert await it.node.database.run(found) is not None
    row = await it.node.database.run(
        lambda connection: connection.execute(
            "SELECT used_on FROM tokens WHERE id = ?", (token.split("_")[1],)
        ).fetchone()
    )
    assert row["used_on"] == 2


async def test_a_query_is_compiled_when_it_is_added(it: Rig) -> None:
    """The answer holds everything a round will need, and the public list shows the question."""
    status, added = await it.admin("POST", "queries", QUERY | {"description": "who was here"})
    assert status == 201
    assert added["slots"] == 128
    assert json.loads(added["plan"])["sql"] == QUERY["sql"]
    assert added["report_bytes"] == 49 + 128 * added["width"] // 8
    assert (await it.admin("GET", "queries/members"))[1] == added
    assert (await it.admin("GET", "queries"))[1] == {"queries": [added]}
    _, body = await it.get("/v1/queries")
    [shown] = json.loads(body)["queries"]
    assert shown["words"].startswith("The question, as asked")
    assert "plan" not in shown
    assert (await it.admin("POST", "queries", QUERY))[1]["type"].endswith(":query_exists")


WRONG_QUERIES: dict[str, dict[str, object]] = {
    "sql_refused": {"sql": "SELECT * FROM visit"},
    "schema_refused": {"registry": {"events": {}}},
    "sql_refused: bounds": {
        "sql": "SELECT SUM(load) FROM visit",
        "registry": {
            "events": {"visit": {"columns": {"load": {"kind": "number", "lo": 0, "hi": 2**27}}}}
        },
        "epsilon": "0.1",
    },
    "sql_refused: delta": {"delta": "2"},
    "sql_refused: no epsilon": {"epsilon": 0},
    "bad_request: unknown field": {"colour": "red"},
    "bad_request: name": {"name": "no spaces please"},
    "bad_request: type": {"cohort_min": "2"},
    "bad_request: order": {"cohort_min": 6_000},
    "bad_request: suite": {"suite": 9},
    "bad_request: epsilon": {"epsilon": "much"},
    "bad_request: scope": {"scope": "UPPER"},
}


@pytest.mark.parametrize("case", WRONG_QUERIES)
async def test_wrong_queries_are_refused(it: Rig, case: str) -> None:
    """Each with its token and a reason; nothing is stored."""
    status, answer = await it.admin("POST", "queries", QUERY | WRONG_QUERIES[case])
    assert answer["type"].endswith(f":{case.partition(':')[0]}"), answer
    assert status == answer["status"] < 500
    assert answer["detail"]
    assert (await it.admin("GET", "queries"))[1] == {"queries": []}


async def test_bodies_that_are_no_json(it: Rig) -> None:
    """Not JSON, too large, another media type: refused with nothing of the input in the answer."""
    url = f"{it.node.admin_url}/admin/v1/queries"
    cases = [
        (b"{canary", "application/json", "bad_request"),
        (b"[" * 100_000, "application/json", "bad_request"),
        (b"{}" + b" " * 1_048_576, "application/json", "too_large"),
        (b"{}", "text/plain", "media_type"),
    ]
    for body, media, expected in cases:
        headers = {"Authorization": f"Bearer {it.token}", "Content-Type": media}
        async with it.session.post(url, data=io.BytesIO(body), headers=headers) as response:
            answer = await response.text()
            assert json.loads(answer)["type"].endswith(f":{expected}")
            assert "canary" not in answer


async def test_times_of_a_round(it: Rig) -> None:
    """Impossible times are `bad_time`, an unknown query `unknown_query`; nothing is opened."""
    await it.admin("POST", "queries", QUERY)
    now = int(time.time())
    cases = [
        ({"query": "members", "closes": now - 10}, "bad_time"),
        ({"query": "members", "opens": now - 20, "closes": now - 10}, "bad_time"),
        ({"query": "members", "opens": now + 10, "closes": now + 5}, "bad_time"),
        ({"query": "members", "closes": now + 50, "expires": now + 20}, "bad_time"),
        ({"query": "members", "closes": now + 50, "duration_s": 5}, "bad_request"),
        ({"query": "members", "duration_s": 0}, "bad_request"),
        ({"query": "other", "duration_s": 5}, "unknown_query"),
    ]
    for body, expected in cases:
        _, answer = await it.admin("POST", "rounds", body)
        assert answer["type"].endswith(f":{expected}"), answer
    assert (await it.admin("GET", "rounds"))[1] == {"rounds": []}


def dated(day: date, **more: object) -> dict[str, object]:
    """The usual question about an event that expires on a day."""
    visit = QUERY["registry"]["events"]["visit"]
    return QUERY | {"registry": {"events": {"visit": visit | {"expires": f"{day}"} | more}}}


async def test_an_expired_event_is_not_asked(it: Rig) -> None:
    """Refused when the question is declared, with its place, and nothing is stored."""
    status, answer = await it.admin("POST", "queries", dated(datetime.now(UTC).date()))
    assert status == 422
    assert answer["detail"].startswith("line 1, column 41: event visit expires on ")
    assert (await it.admin("GET", "queries"))[1] == {"queries": []}


async def test_no_round_reaches_into_the_day_of_expiry(it: Rig) -> None:
    """A question outlives its event; the round that would still be open then is refused. The
    control is a round that closes at that midnight.
    """
    day = datetime.now(UTC).date() + timedelta(days=2)
    midnight = int(datetime.combine(day, datetime.min.time(), UTC).timestamp())
    assert (await it.admin("POST", "queries", dated(day)))[0] == 201
    status, answer = await it.admin("POST", "rounds", {"query": "members", "closes": midnight + 1})
    assert status == 422
    assert answer["detail"].startswith("line 1, column 41: event visit expires on ")
    assert (await it.admin("GET", "rounds"))[1] == {"rounds": []}
    assert (await it.admin("POST", "rounds", {"query": "members", "closes": midnight}))[0] == 201


async def test_the_event_says_how_many_rows_count(it: Rig) -> None:
    """A question that says nothing takes `rows_max_default`."""
    day = datetime.now(UTC).date() + timedelta(days=2)
    _, added = await it.admin("POST", "queries", dated(day, rows_max_default=3))
    assert added["rows_max"] == json.loads(added["plan"])["rows_max"] == 3


async def test_defaults_of_a_round(it: Rig) -> None:
    """What a request leaves out comes from the configuration."""
    await it.admin("POST", "queries", QUERY)
    _, opened = await it.admin("POST", "rounds", {"query": "members"})
    lifetimes = it.node.config.lifetimes
    # Whole seconds, rounded so that nobody gets less time than was asked for.
    assert opened["closes"] - opened["opens"] in (lifetimes.open_s, lifetimes.open_s + 1)
    assert opened["expires"] - opened["closes"] == lifetimes.answer_s
    assert (opened["phase"], opened["reports"]) == ("open", 0)


REFUSALS: dict[str, dict[str, object]] = {
    "unknown_scope": {"scope": "elsewhere"},
    "floor_cohort": {"cohort_min": 2},
    "floor_noise": {"epsilon": "5000"},
}


@pytest.mark.parametrize("token", REFUSALS)
async def test_what_a_helper_refuses_is_not_opened(tmp_path: Path, token: str) -> None:
    """The helper's token reaches the operator with its name; no round comes about."""
    async with rig(tmp_path, MemoryStore(), cohort_min=3) as it:
        query = QUERY | {"cohort_min": 3} | REFUSALS[token]
        assert (await it.admin("POST", "queries", query))[0] == 201
        status, answer = await it.admin("POST", "rounds", {"query": "members", "duration_s": 5})
        assert answer["type"].endswith(f":{token}"), answer
        assert status == answer["status"]
        assert "helper" in answer["detail"]
        assert (await it.admin("GET", "rounds"))[1] == {"rounds": []}


async def test_a_helper_that_cannot_be_reached(it: Rig) -> None:
    """503 `helper_unavailable`, naming it; the operator tries again later and it works."""
    await it.admin("POST", "queries", QUERY)
    it.gates[1].shut()
    status, answer = await it.admin("POST", "rounds", {"query": "members", "duration_s": 5})
    assert (status, answer["type"]) == (503, "urn:dandelion:problem:helper_unavailable")
    assert it.helpers[1].identity.hex()[:8] in answer["detail"]
    it.gates[1].open()
    assert (await it.admin("POST", "rounds", {"query": "members", "duration_s": 5}))[0] == 201


async def test_a_helper_that_refuses_our_token_is_no_401(tmp_path: Path) -> None:
    """The operator's token is fine; that ours is not is said as `helper_unavailable`."""
    async with parties(tmp_path) as them:
        peers = [
            {"url": gate.url, "identity": each.identity.hex(), "token": "wrong"}
            for each, gate in zip(them.helpers, them.gates, strict=True)
        ]
        async with them.rig(MemoryStore(), helpers=peers) as it:
            await it.admin("POST", "queries", QUERY)
            status, answer = await it.admin("POST", "rounds", {"query": "members"})
            assert (status, answer["detail"][-12:]) == (503, "unauthorized")


async def test_a_round_with_two_shards(tmp_path: Path) -> None:
    """Each shard is asked for and charged; a shard below cohort_min is left out."""
    async with rig(tmp_path, MemoryStore()) as it:
        assert (await it.admin("POST", "queries", QUERY | {"shard_bits": 1}))[0] == 201
        round_id, d = await it.open()
        assert d.shards == 2
        await it.send(d, range(30))
        it.clock.reach(d.closes)
        await it.until(round_id, "released")
        _, artefact = await it.get(f"/v1/releases/{round_id}")
        verified = verify_release(artefact)
        assert len(verified.release.shards) == 2
        assert_exactly_once(verified.sums, range(30), d.linf)
        _, ledger = await it.admin("GET", "ledger")
        places = [(entry["kind"], entry["shard"]) for entry in ledger["entries"]]
        assert places == [("charge", 0), ("charge", 1), ("release", 0), ("release", 1)]


async def test_a_changed_ledger_is_noticed(it: Rig) -> None:
    """One changed number, and the audit names the entry."""
    round_id, d = await it.open()
    await it.send(d, range(3))
    it.clock.reach(d.closes)
    await it.until(round_id, "released")
    await it.node.database.run(
        lambda connection: connection.execute("UPDATE ledger SET rho_units = '1' WHERE seq = 1")
    )
    _, ledger = await it.admin("GET", "ledger")
    assert (ledger["intact"], ledger["fault"]) == (False, "ledger entry 1")


async def test_results_are_those_of_the_public_interface(it: Rig) -> None:
    """The same table, the same artefact, behind a scope."""
    round_id, d = await it.open()
    await it.send(d, range(3))
    it.clock.reach(d.closes)
    await it.until(round_id, "released")
    _, table = await it.get(f"/v1/releases/{round_id}/table")
    assert (await it.admin("GET", f"results/{round_id}"))[1] == json.loads(table)
    assert (await it.admin("GET", "results"))[1]["results"][0]["round"] == round_id
    await asyncio.sleep(0)
