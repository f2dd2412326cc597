"""Whole rounds over real processes: one-hot membership, every acknowledged client exactly once.

Every client sets its own slot, so the released vector is the list of members. The noise is known
here because the test reads the helpers' round roots while they still exist; no deployment could.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client_py.config import Policy
from client_py.fleet import Behaviour, FleetResult, run_fleet
from dandelion.cli.http import Api
from dandelion.cli.stack import Settings, Stack, running
from dandelion.params import SEED_BYTES
from dandelion.schemes import oneshot
from dandelion.verify import verify_release
from tests.oracle_membership import assert_exactly_once
from tests.services import StoreServer, redis_binary

HONEST = Behaviour()
CLIENTS = 150
REGISTRY = "events:\n  seat:\n    description: Who sits where\n    columns:\n" + (
    "      id: {kind: category, description: seat, values: ["
    + ", ".join(f"s{i}" for i in range(CLIENTS))
    + "]}\n"
)
SETTINGS = Settings(
    folder=Path(),
    scopes=("seats",),
    cohort_min=20,
    policy=Policy(cohort_min=20, epsilon_round=5, epsilon_period=30),
    epsilon_round=5,
)


@pytest.fixture(params=["embedded", "redis", "two processes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Stack]:
    """A running deployment: embedded store, Debian's Redis, or two collector processes."""
    settings = replace(SETTINGS, folder=tmp_path_factory.mktemp("s"))
    if request.param == "two processes":
        settings = replace(settings, workers=2)
    if request.param != "redis":
        with running(settings) as started:
            yield started
        return
    server = StoreServer(redis_binary())
    server.start()
    try:
        with running(replace(settings, redis_url=server.url)) as started:
            yield started
    finally:
        server.discard()


def open_round(api: Api, *, seconds: int, cohort_min: int = 20) -> str:
    """A round that asks how many sit in each seat."""
    api.admin(
        "POST",
        "/admin/v1/queries",
        {
            "name": f"seats-{cohort_min}",
            "sql": "SELECT id, COUNT(*) FROM seat GROUP BY id",
            "registry": REGISTRY,
            "scope": "seats",
            "epsilon": "4",
            "delta": "1e-8",
            "cohort_min": cohort_min,
            "cohort_max": 1_000,
            "rows_max": 1,
        },
    )
    body = {"query": f"seats-{cohort_min}", "duration_s": seconds}
    return str(api.admin("POST", "/admin/v1/rounds", body)["round"])


def contribute(
    stack: Stack, api: Api, round_id: str, count: int, behaviour: Behaviour = HONEST
) -> FleetResult:
    """Clients 0 to count - 1, each in its own seat."""
    config = stack.client_config
    clients = [{"seat": [{"id": f"s{i}"}]} for i in range(count)]
    envelope = asyncio.run(api.envelope(round_id))
    return asyncio.run(
        run_fleet(
            config.pinned, config.policy, clients, rounds=[envelope], behaviour=behaviour, seed=1
        )
    )


def roots(stack: Stack) -> list[bytes]:
    """Every round root in the helpers' folders."""
    folder = Path(stack.deployment.token_file or "").parent
    return [
        path.read_bytes()
        for path in folder.glob("helper-*/roots/*")
        if path.stat().st_size == SEED_BYTES
    ]


def ended(api: Api, round_id: str, timeout_s: float = 60) -> dict[str, Any]:
    """The round once it is in a final phase."""
    deadline = time.monotonic() + timeout_s
    while True:
        document: dict[str, Any] = api.admin("GET", f"/admin/v1/rounds/{round_id}")
        if document["phase"] in ("released", "abandoned", "damaged"):
            return document
        assert time.monotonic() < deadline, document
        time.sleep(0.2)


def exact(release: bytes, known_roots: list[bytes]) -> oneshot.Vector:
    """The released vector without the helpers' noise, shape (slots,)."""
    checked = verify_release(release)
    d, shard = checked.release.descriptor, checked.release.shards[0]
    sums = checked.sums.copy()
    for entry in d.helpers:
        root = next(r for r in known_roots if oneshot.round_keys(r)[1] == entry.mask_key)
        sums -= oneshot.noise(d, root, shard.shard, shard.set_digest)
    return sums


def test_acknowledged_set_is_the_summed_set_each_exactly_once(stack: Stack) -> None:
    """Clients that vanish, repeat and lose answers: the sum holds the acknowledged, once each."""
    api = Api(stack.deployment)
    round_id = open_round(api, seconds=6)
    behaviour = Behaviour(never_send=0.1, send_twice=0.3, lose_answer=0.2)
    fleet = contribute(stack, api, round_id, CLIENTS, behaviour)
    known = roots(stack)
    document = ended(api, round_id)
    assert document["phase"] == "released", document
    acknowledged = fleet.acknowledged[round_id]
    assert 0 < len(acknowledged) < CLIENTS
    release = asyncio.run(api.release(round_id))
    assert_exactly_once(exact(release, known), acknowledged)
    assert set(fleet.again) <= {"duplicate"}
    assert fleet.again["duplicate"] > 0
    # The artefact is what every reader gets, and the keys of the round are gone.
    assert asyncio.run(api.release(round_id)) == release
    assert not set(roots(stack)) & set(known)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: Any) -> Iterator[Stack]:
    """One running deployment, for rounds that end differently."""
    with running(replace(SETTINGS, folder=tmp_path_factory.mktemp("s"))) as started:
        yield started


class TestOnOneDeployment:
    """Rounds that do not end well, on a deployment they share."""

    def test_cohort_below_minimum_is_abandoned_and_nothing_is_published(
        self, shared: Stack
    ) -> None:
        """Five clients where twenty are needed."""
        api = Api(shared.deployment)
        round_id = open_round(api, seconds=4, cohort_min=21)
        fleet = contribute(shared, api, round_id, 5)
        assert len(fleet.acknowledged[round_id]) == 5
        document = ended(api, round_id)
        assert document["phase"] == "abandoned"
        assert "cohort" in document["reason"]
        assert round_id not in [
            r["round"] for r in api.get("/v1/releases")["releases"] if r["phase"] == "released"
        ]
        with pytest.raises(Exception, match="not_released"):
            asyncio.run(api.release(round_id))

    def test_helper_that_is_down_delays_a_round_and_loses_nothing(self, shared: Stack) -> None:
        """A stopped helper answers once it runs again; the round then holds every report."""
        api = Api(shared.deployment)
        round_id = open_round(api, seconds=4, cohort_min=22)
        fleet = contribute(shared, api, round_id, 40)
        known = roots(shared)
        helper = shared.processes()["helper-2"]
        os.kill(helper, signal.SIGSTOP)
        try:
            time.sleep(7)
            waiting = api.admin("GET", f"/admin/v1/rounds/{round_id}")
            assert waiting["phase"] == "sealed"
        finally:
            os.kill(helper, signal.SIGCONT)
        assert ended(api, round_id)["phase"] == "released"
        summed = exact(asyncio.run(api.release(round_id)), known)
        assert_exactly_once(summed, range(40))
        assert len(fleet.acknowledged[round_id]) == 40
