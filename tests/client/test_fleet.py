"""Many clients over real HTTP: each acknowledged report is counted once, whatever goes wrong."""

import time
from dataclasses import replace

import numpy as np
import pytest
from aiohttp import web

from client_py.client import Patience
from client_py.config import Policy
from client_py.fleet import Behaviour, FleetResult, run_fleet
from client_py.transport import TransportError
from dandelion.descriptor import Descriptor
from dandelion.privacy import accounting
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query
from dandelion.schemes import oneshot
from tests.client.builders import Deployment, seed
from tests.client.fake_collector import FakeCollector, refusal

HOME = Deployment()
CLIENTS = 60
NAMES = [f"client {index}" for index in range(CLIENTS)]
REGISTRY = Registry.from_object(
    {"events": {"self": {"columns": {"name": {"kind": "category", "values": NAMES}}}}}
)


def membership_round() -> Descriptor:
    """A round in which client i adds one to slot i, so that the sum is the list of members."""
    compiled = compile_query(
        "SELECT name, COUNT(*) FROM self GROUP BY name",
        REGISTRY,
        name="members",
        epsilon="1",
        delta="1e-8",
    )
    now = int(time.time())
    return HOME.descriptor(
        opens=now - 60,
        closes=now + 600,
        expires=now + 1_200,
        slots=compiled.slots,
        linf=compiled.linf,
        l2sq=compiled.l2sq,
        noise_var=accounting.noise_var_for(compiled.l2sq, 1.0, 1e-8),
        plan=compiled.plan_bytes,
    )


async def run(
    behaviour: Behaviour | None = None, policy: Policy | None = None
) -> tuple[FleetResult, list[int]]:
    """A fleet against a small collector: its result, and what the collector's sum holds."""
    descriptor = membership_round()
    clients = [{"self": [{"name": name}]} for name in NAMES]
    progress: list[int] = []
    async with FakeCollector(HOME.envelope(descriptor)) as collector:
        result = await run_fleet(
            replace(HOME.config(), endpoint=collector.endpoint),
            policy or Policy(),
            clients,
            connections=8,
            behaviour=behaviour or Behaviour(),
            patience=Patience(attempts=3, wait_max_s=5, step_s=0),
            seed=11,
            progress=progress.append,
        )
        bodies = list(dict.fromkeys(collector.bodies))
    assert progress == list(range(1, CLIENTS + 1))
    return result, unmask(descriptor, bodies)


def unmask(descriptor: Descriptor, bodies: list[bytes]) -> list[int]:
    """The sum of all reports, with both helpers' masks taken off and no noise."""
    total = oneshot.fold(descriptor, oneshot.zero(descriptor), bodies)
    keys = b"".join(body[17:49] for body in bodies)
    from dandelion import kernel

    ordered = sorted(HOME.helpers, key=lambda each: each.identity)
    masks = [
        kernel.mask_sum(
            descriptor.suite,
            descriptor.width,
            descriptor.slots,
            descriptor.ctx,
            party,
            oneshot.round_keys(seed(f"{each.name} root 1"))[0],
            keys,
        )
        for party, each in enumerate(ordered, start=1)
    ]
    plain = kernel.sub_payloads(total, masks, 0, descriptor.width)
    values = np.frombuffer(kernel.unpack(plain, descriptor.width), dtype="<i8")
    return [int(value) for value in values]


async def test_every_client_of_a_fleet_is_in_the_sum_once() -> None:
    """The acknowledged set equals the summed set."""
    result, members = await run()
    assert members == [1] * CLIENTS
    assert list(result.acknowledged.values()) == [list(range(CLIENTS))]
    assert result.outcomes == {"accepted": CLIENTS}
    assert result.rate > 0


async def test_clients_that_misbehave_are_counted_once_or_not_at_all() -> None:
    """Some vanish before sending, some send twice, some lose the first answer."""
    result, members = await run(Behaviour(never_send=0.2, send_twice=0.3, lose_answer=0.3))
    ((_, acknowledged),) = result.acknowledged.items()
    assert members == [int(index in set(acknowledged)) for index in range(CLIENTS)]
    assert result.outcomes["vanished"] == CLIENTS - len(acknowledged) > 0
    assert result.outcomes["duplicate"] > 0
    assert result.again["duplicate"] > 0


async def test_a_fleet_obeys_its_policy() -> None:
    """Coins and floors are those of real clients."""
    result, _ = await run(policy=Policy(participation=0.5))
    assert 0 < result.outcomes["skipped"] < CLIENTS
    assert result.outcomes["accepted"] == CLIENTS - result.outcomes["skipped"]


async def test_refusals_are_counted_by_token() -> None:
    """By the client's own policy, and by the collector."""
    async with FakeCollector(HOME.envelope(membership_round())) as collector:

        async def closed(request: web.Request) -> web.StreamResponse:
            return refusal("round_closed")

        collector.behave = closed
        config = replace(HOME.config(), endpoint=collector.endpoint)
        floor = await run_fleet(config, Policy(cohort_min=5_000), [{}] * 3)
        assert floor.outcomes == {"refused:floor_cohort": 3}
        late = await run_fleet(config, Policy(), [{}] * 3)
        assert late.outcomes == {"rejected:round_closed": 3}
        assert late.acknowledged == {}


async def test_a_server_that_closes_connections_is_borne() -> None:
    """One connection for each answer, as a proxy in front may do."""
    async with FakeCollector(HOME.envelope(membership_round())) as collector:

        async def closing(request: web.Request) -> web.StreamResponse:
            response = web.json_response({"result": "accepted"}, status=201)
            response.force_close()
            return response

        collector.behave = closing
        config = replace(HOME.config(), endpoint=collector.endpoint)
        result = await run_fleet(config, Policy(), [{}] * 10, connections=2)
        assert result.outcomes == {"accepted": 10}


async def test_without_a_list_of_rounds_there_is_no_fleet() -> None:
    """The one request that all clients share fails loudly."""
    with pytest.raises(TransportError):
        await run_fleet(HOME.config("http://127.0.0.1:9"), Policy(), [{}])
