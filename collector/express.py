"""The short way of a report: what nearly every request of a collector is, answered without detours.

A whole POST for a round that takes reports goes from the parser to the committer, and its answer
from the committer to the socket, without a task or a request object of its own. That more than
halves what a report costs. Every rule and every byte of an answer is that of `handlers.report`,
which takes whatever is not plain: `tests/collector/test_express.py` sends the same requests both
ways and compares.

Leaves out: what a report is worth (`ingest`, `committer`), and deadlines of connections
(`http_guard`).
"""

import asyncio
import random
from collections import deque
from email.utils import formatdate
from functools import partial
from typing import Final

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_parser import RawRequestMessage

from collector.backpressure import Held
from collector.book import Round
from collector.committer import Outcome
from collector.handlers import Public, count_refusal, public_headers, report_answer
from collector.ingest import Seat
from collector.problems import fault
from dandelion.errors import DandelionError
from dandelion.params import MEDIA_REPORT, MEDIA_REPORT_SAFELISTED
from dandelion.service.http_guard import Connection
from dandelion.service.problems import PLAIN_HEADERS, problem_response

_PREFIX: Final = "/v1/rounds/"
_SUFFIX: Final = "/reports"
_NAME: Final = slice(len(_PREFIX), len(_PREFIX) + 32)
_PATH_CHARS: Final = len(_PREFIX) + 32 + len(_SUFFIX)
# The last is what a page's `fetch` makes of a string; other spellings go the long way.
_MEDIA: Final = frozenset(
    {MEDIA_REPORT, MEDIA_REPORT_SAFELISTED, f"{MEDIA_REPORT_SAFELISTED};charset=UTF-8"}
)
_REFUSALS: Final = 16
_RANDOM: Final = random.SystemRandom()


class Express:
    """Takes reports off the connections of one process; a `ShortWay` of `http_guard`."""

    def __init__(self, public: Public) -> None:
        self.public = public
        self._held = Held(public.ingest.room)
        # Whole answers by outcome and origin; for a second, since they carry time and window.
        self._answers: dict[tuple[str, str | None], bytes] = {}
        self._moment = (0, 0)
        # In the order they came, which is that of their deadlines: one timer is enough.
        self._line: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def take(self, connection: Connection, message: RawRequestMessage, body: StreamReader) -> bool:
        """Whether it answers this request; see `ShortWay.take`."""
        path, headers, public = message.path, message.headers, self.public
        if (
            len(path) != _PATH_CHARS
            or message.method != hdrs.METH_POST
            or not (path.startswith(_PREFIX) and path.endswith(_SUFFIX))
            or (round_ := public.book.listed(path[_NAME])) is None
            or (size := body.total_bytes) != round_.report_bytes
            or headers.get(hdrs.CONTENT_TYPE) not in _MEDIA
            or hdrs.HOST not in headers
            or hdrs.EXPECT in headers
            or hdrs.CONTENT_ENCODING in headers
            or headers.get("Sec-Fetch-Mode") == "navigate"
            # Answers pile up that nobody fetches; the long way waits until somebody does.
            or connection.writing_paused
            or not round_.taking(public.clock())
        ):
            return False
        connection.begin()
        whole, origin = body.read_nowait(), headers.get(hdrs.ORIGIN)
        if public.ingest.draining or not public.ingest.enter(size):
            # What turns many away must not be all that is done.
            public.pace.arrived()
            token = "draining" if public.ingest.draining else "overloaded"
            count_refusal(public.metrics, token)
            connection.end(self.shed(token, origin))
            if not public.ingest.draining:
                self._held.hold(connection)
            return True
        _Waiting(self, connection, size, origin).start(round_, whole)
        return True

    def queue(self, waiting: "_Waiting") -> None:
        """Sees to it that a report is answered in time, whether or not its fate is known."""
        # What was answered keeps its connection no longer, open or not.
        while self._line and self._line[0].answered:
            self._line.popleft()
        self._line.append(waiting)
        if self._timer is None:
            self._wait_for_first()

    def _wait_for_first(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._line[0].started + self.public.config.limits.answer_s
        self._timer = loop.call_at(due, self._send_away)

    def _send_away(self) -> None:
        self._timer = None
        oldest = asyncio.get_running_loop().time() - self.public.config.limits.answer_s
        while self._line and (self._line[0].answered or self._line[0].started <= oldest):
            waiting = self._line.popleft()
            if not waiting.answered:
                waiting.refuse("store_unavailable")
        if self._line and self._timer is None:
            self._wait_for_first()

    def answer(self, outcome: Outcome, origin: str | None) -> bytes:
        """The bytes of the answer to a report.

        Raises:
            RuleError: it is not in.
        """
        key = self._key(outcome, origin)
        made = self._answers.get(key)
        if made is None:
            answer = report_answer(outcome, draining=self.public.ingest.draining)
            made = self._answers[key] = self.encode(answer, origin)
        return made

    def shed(self, token: str, origin: str | None) -> bytes:
        """The bytes of one of a few refusals, which differ in when to come again."""
        key = self._key(f"{token} {_RANDOM.randrange(_REFUSALS)}", origin)
        made = self._answers.get(key)
        if made is None:
            made = self._answers[key] = self.refusal(token, origin)
        return made

    def _key(self, what: str, origin: str | None) -> tuple[str, str | None]:
        moment = int(self.public.clock()), self.public.pace.turn
        if moment != self._moment:
            self._answers.clear()
            self._moment = moment
        return what, origin if origin in self.public.config.allowed_origins else None

    def refusal(self, error: DandelionError | str, origin: str | None) -> bytes:
        """The bytes of a problem document."""
        retry_s = self.public.config.pace.retry_s
        return self.encode(problem_response(error, retry_s=retry_s), origin)

    def encode(self, response: web.Response, origin: str | None) -> bytes:
        """A complete answer as HTTP/1.1."""
        public = self.public
        public_headers(response, origin, public.config.allowed_origins)
        response.headers.update(PLAIN_HEADERS)
        response.headers.update(public.pace.headers())
        body = bytes(response.body or b"")  # type: ignore[arg-type] # always bytes here
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        lines += [f"Content-Length: {len(body)}", f"Date: {formatdate(usegmt=True)}", "", ""]
        return "\r\n".join(lines).encode() + body


class _Waiting:
    """One report between its last byte and its answer."""

    __slots__ = ("_connection", "_express", "_origin", "_size", "answered", "started")

    def __init__(
        self, express: Express, connection: Connection, size: int, origin: str | None
    ) -> None:
        self._express = express
        self._connection = connection
        self._size = size
        self._origin = origin
        self.answered = False
        self.started = asyncio.get_running_loop().time()

    def start(self, round_: Round, body: bytes) -> None:
        """Offers the report; `_told` hears of its fate."""
        public = self._express.public
        public.pace.arrived()
        public.metrics.count("report_bytes_total", by=self._size)
        try:
            offered = public.ingest.offer(round_, body, self._told)
        except DandelionError as error:
            public.ingest.leave(self._size)
            self.refuse(error)
            return
        except Exception as error:  # noqa: BLE001 - logged, as `problems` does on the long way
            fault(error)
            public.ingest.leave(self._size)
            self.refuse("internal")
            return
        if offered:
            self._express.queue(self)
        else:
            # A copy under way, the first one in its lane, a store that is away.
            seat = Seat(partial(public.ingest.leave, self._size))
            task = asyncio.create_task(public.ingest.accept(round_, body, seat))
            task.add_done_callback(partial(self._accepted, seat))

    def refuse(self, error: DandelionError | str) -> None:
        """Answers now; the report keeps its room until its fate is known."""
        count_refusal(self._express.public.metrics, error)
        self._end(self._express.refusal(error, self._origin))

    def _accepted(self, seat: Seat, task: asyncio.Task[Outcome]) -> None:
        try:
            self._answer(task.result())
        except DandelionError as error:
            self.refuse(error)
        except asyncio.CancelledError:
            self.refuse("store_unavailable")
        except Exception as error:  # noqa: BLE001 - logged, as `problems` does on the long way
            fault(error)
            self.refuse("internal")
        finally:
            # A committer that has the report keeps its room.
            seat.release()

    def _told(self, outcome: Outcome) -> None:
        public = self._express.public
        try:
            if not self.answered:
                self._answer(outcome)
        except Exception as error:  # noqa: BLE001 - logged; whoever tells must not suffer from it
            fault(error)
        finally:
            public.ingest.leave(self._size)

    def _answer(self, outcome: Outcome) -> None:
        public = self._express.public
        try:
            answer = self._express.answer(outcome, self._origin)
        except DandelionError as error:
            self.refuse(error)
            return
        public.metrics.count("reports_total", outcome)
        elapsed = asyncio.get_running_loop().time() - self.started
        public.metrics.observe("report_seconds", elapsed)
        self._end(answer)

    def _end(self, answer: bytes) -> None:
        if not self.answered:
            self.answered = True
            self._connection.end(answer)
