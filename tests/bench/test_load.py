"""The load generator: real reports, the same bytes until they are taken, honest latencies."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pytest

from dandelion.messages import Report
from dandelion.params import KEY_BYTES
from dandelion.schemes import oneshot
from tests.bench.bed import Checked, Wrong, require_exact
from tests.bench.crew import secrets_of
from tests.bench.load import Job, Sender, Source, at_once, make, truth
from tests.bench.watch import Watch
from tests.collector.builders import descriptor_for, seed

WEIGHTED: Final[dict[str, Any]] = {"slots": 8, "linf": 500, "l2sq": 250_000}
HEAD: Final = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"

Answer = Callable[[int, bytes], bytes | None]
"""Gives the answer to request number n with this body; None closes the connection instead."""


@contextmanager
def server(answer: Answer) -> Iterator[tuple[int, list[bytes]]]:
    """A server of few words on a free port, and the bodies it got, in their order."""
    bodies: list[bytes] = []
    lock = threading.Lock()

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while line != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                    line = file.readline()
                body = file.read(length)
                with lock:
                    bodies.append(body)
                    number = len(bodies)
                reply = answer(number, body)
                if reply is None:
                    return
                connection.sendall(reply)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], bodies
        listener.shutdown(socket.SHUT_RDWR)


def reply(status: int, body: bytes = b"{}", *headers: bytes) -> bytes:
    """An answer as the collector writes it."""
    lines = [b"HTTP/1.1 %d Word" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def problem(token: str) -> bytes:
    """The body of a refusal."""
    return b'{"type": "urn:dandelion:problem:%s"}' % token.encode()


def sent(port: int, source: Source, connections: int = 2) -> Sender:
    """A sender that has sent everything of a source."""
    sender = Sender("127.0.0.1", port, connections, answer_timeout_s=1.0)
    try:
        sender.run(source)
    finally:
        sender.close()
    return sender


def test_reports_are_those_of_real_clients() -> None:
    """Masks of all helpers taken from the sum of the reports leave the known sum of the vectors."""
    d = descriptor_for(**WEIGHTED)
    known = {oneshot.round_keys(root)[1]: root for root in (seed("root 1"), seed("root 2"))}
    roots = [known[helper.mask_key] for helper in d.helpers]
    clients, secrets = 30, os.urandom(30 * KEY_BYTES)
    data = b"".join(make(d, 5, clients, secrets))
    reports = [data[at : at + d.report_bytes] for at in range(0, len(data), d.report_bytes)]
    keys = b"".join(sorted(Report.decode(it, d.round_id, d.report_bytes).epk for it in reports))
    total = oneshot.fold(d, oneshot.zero(d), reports)
    answers = [
        oneshot.answer_vector(d, party, root, 0, bytes(32), keys)
        for party, root in enumerate(roots, start=1)
    ]
    exact = oneshot.unmask(d, total, answers, clients)
    for root in roots:
        exact = exact - oneshot.noise(d, root, 0, bytes(32))
    assert exact.tolist() == truth(d, np.arange(5, 35)).tolist()


def test_what_is_turned_away_for_now_comes_again_with_the_same_bytes() -> None:
    """A 503 and a broken connection: each report is taken in the end, and none changed."""

    def answer(number: int, body: bytes) -> bytes | None:
        if number == 1:
            return reply(503, problem("overloaded"), b"Retry-After: 0")
        return None if number == 2 else reply(201)

    with server(answer) as (port, bodies):
        outcomes = sent(port, at_once(HEAD, b"aaaabbbbcccc", 4, 0)).outcomes
    assert sorted(bodies) == sorted([b"aaaa", b"bbbb", b"cccc", *bodies[:2]])
    assert outcomes.counts == {"accepted": 3}
    assert outcomes.again == {"overloaded": 1, "broken connection": 1}
    assert outcomes.refused == []


def test_a_refusal_is_final_and_names_the_client() -> None:
    """A report of a closed round is not sent again, and is not among the acknowledged."""

    def answer(number: int, body: bytes) -> bytes:
        return reply(409, problem("round_closed")) if body == b"bbbb" else reply(200)

    with server(answer) as (port, bodies):
        outcomes = sent(port, at_once(HEAD, b"aaaabbbb", 4, 7)).outcomes
    assert len(bodies) == 2
    assert outcomes.counts == {"duplicate": 1, "round_closed": 1}
    assert outcomes.refused == [8]


def test_silence_is_not_an_answer() -> None:
    """A server that takes a report and says nothing gets the same bytes again after a while."""

    def answer(number: int, body: bytes) -> bytes:
        if number == 1:
            time.sleep(5)
        return reply(201)

    with server(answer) as (port, bodies):
        outcomes = sent(port, at_once(HEAD, b"aaaa", 4, 0)).outcomes
    assert bodies == [b"aaaa", b"aaaa"]
    assert outcomes.again == {"no answer in time": 1}


def test_latency_counts_from_when_a_report_was_due() -> None:
    """A server that stops once, one connection: the reports behind it waited too, and say so."""
    began = time.monotonic()
    dues = [began + number * 0.01 for number in range(20)]
    left = list(enumerate(dues))

    def source(now: float) -> Job | float | None:
        if not left:
            return None
        if now < left[0][1]:
            return left[0][1]
        number, due = left.pop(0)
        return Job(HEAD, b"%04d" % number, number, due)

    def answer(number: int, body: bytes) -> bytes:
        if number == 1:
            time.sleep(0.5)
        return reply(201)

    with server(answer) as (port, _):
        outcomes = sent(port, source, connections=1).outcomes
    assert outcomes.taken == 20
    # All twenty were due within the first 0.2 s of the half second.
    assert outcomes.percentiles(0)[0] > 0.25


def test_secrets_of_a_seed_repeat_and_those_of_others_differ() -> None:
    """Another seed, or another first client, is another set of keys."""
    made = [secrets_of(seed, first, 10) for seed, first in ((1, 0), (1, 0), (2, 0), (1, 10))]
    assert made[0] == made[1]
    assert len({made[0], made[2], made[3]}) == 3
    assert len(made[0]) == 10 * KEY_BYTES


@pytest.mark.parametrize("fault", ["lost", "twice", "another"])
def test_a_sum_that_is_not_exact_is_noticed(fault: str) -> None:
    """One report of thirty lost, counted twice, or in another's place, the number being right."""
    d = descriptor_for(**WEIGHTED)
    clients = list(range(30))
    right = truth(d, np.array(clients))
    wrong = {"lost": clients[:-1], "twice": [*clients[:-1], 3], "another": [*clients[:-1], 99]}
    summed = truth(d, np.array(wrong[fault]))
    with pytest.raises(Wrong, match="differ"):
        require_exact(_checked(summed, 30), right, 30)
    require_exact(_checked(right, 30), right, 30)


def test_a_number_that_differs_is_noticed_although_the_sum_agrees() -> None:
    """Thirty acknowledged, and a release that says thirty-one."""
    d = descriptor_for(**WEIGHTED)
    right = truth(d, np.arange(30))
    with pytest.raises(Wrong, match="31 reports"):
        require_exact(_checked(right, 31), right, 30)


def test_core_time_and_memory_of_a_process_are_seen() -> None:
    """This process works for a while between two marks: its core time of that stage says so."""
    with Watch(every_s=60) as watch:
        watch.processes({"me": os.getpid()})
        watch.mark("work")
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        watch.mark("rest")
        watch.mark("end")
        work, rest = watch.stages()
    assert work.core_s["me"] >= 0.25
    assert rest.core_s["me"] <= 0.1
    assert watch.peak_mb("me") > 1


def _checked(exact: oneshot.Vector, n: int) -> Checked:
    class Verified:
        pass

    verified = Verified()
    verified.n = n  # type: ignore[attr-defined]
    return Checked(verified, exact, np.zeros_like(exact))  # type: ignore[arg-type]
