"""An event loop of virtual time, in which processes can be killed between any two steps.

One handle runs at a time, chosen by a seed. Time moves by `STEP_S` per handle and jumps to the next
timer when nothing is ready. There are no sockets, no threads and no selector: `net` gives
transports, and `run_in_executor` runs the function in line, later, and tells its caller later
still, so that a process may die before the effect or between the effect and the news of it.

A handle belongs to the process in whose context it was made. Of a process that was killed no handle
runs any more: nothing is cancelled and no `finally` is reached.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEP_S: Final = 1e-5


class Killed(BaseException):
    """The process ends here, in the middle of a blocking call."""


class Deadlock(Exception):
    """Nothing is ready and no timer runs: somebody waits for what will never happen."""


@dataclass(eq=False)
class Process:
    """One incarnation of a program on a host, from its start to its death."""

    host: str
    incarnation: int = 1
    alive: bool = True
    stopped: bool = False
    steps: int = 0
    held: list["_Handle"] = field(default_factory=list)
    name: str = ""

    def __post_init__(self) -> None:
        self.name = f"{self.host}#{self.incarnation}"


# Whose step runs. The world itself is a process that nobody kills.
WORLD: Final = Process("world")
PROCESS: Final = contextvars.ContextVar("process", default=WORLD)


class _Handle(asyncio.TimerHandle):
    """A handle that knows whose it is. It leaves out what only debugging needs."""

    __slots__ = ("process",)
    _when: float

    def __init__(
        self,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._cancelled = False
        if context is None:
            self._context = contextvars.copy_context()
            self.process = PROCESS.get()
        else:
            self._context = context
            self.process = context.get(PROCESS, WORLD)

    def cancel(self) -> None:
        self._cancelled = True

    def when(self) -> float:
        return self._when


class _Task(asyncio.Task[Any]):
    """Hashes by birth, so that a set of tasks is walked in the same order in every replay."""

    def __init__(self, coro: Any, loop: "SimLoop", context: contextvars.Context | None) -> None:
        self.born = len(loop.tasks)
        # Kept to the end: a task that is collected would run its `finally`, which the dead do not.
        loop.tasks.append(self)
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.born


class SimExecutor:
    """Stands in for a `ThreadPoolExecutor` of one thread: its calls run in their order."""

    def __init__(self, *_: object, **__: object) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.busy_until = 0.0

    def submit(self, call: Callable[..., T], *args: Any) -> "ThreadFuture[T]":
        """Runs what is waiting and then `call`, at once: the caller blocks anyway."""
        while self.jobs:
            self.jobs.popleft()()
        done: ThreadFuture[T] = ThreadFuture()
        try:
            done.set_result(call(*args))
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            done.set_exception(error)
        return done

    def shutdown(self, wait: bool = True) -> None:
        """Runs what is waiting."""
        while self.jobs:
            self.jobs.popleft()()


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `shuffled` draws the next handle among all that are ready, else first come."""

    _stopping: bool

    def __init__(self, rng: random.Random, *, shuffled: bool = True) -> None:
        super().__init__()
        self.rng = rng
        self.shuffled = shuffled
        self.now = 0.0
        self.steps = 0
        self.trace: list[tuple[float, str, str]] = []
        self.faults: list[str] = []
        # Seconds that a blocking call takes before its effect, and then until it is heard of.
        self.disk_delay: Callable[[], float] = lambda: 0.0
        self.before_step: Callable[[Process], None] | None = None
        self.on_kill: list[Callable[[Process], None]] = []
        # The process whose blocking call runs now, if one does.
        self.blocking: Process | None = None
        self.network: Any = None
        self._soon: list[_Handle] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_number = 0
        self._graveyard: list[object] = []
        self._owners: dict[int, Process] = {}
        self.tasks: list[_Task] = []
        self.set_task_factory(_make_task)

    # Processes

    def start(self, process: Process, main: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Starts the main task of a process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(main, context=context)

    def context_of(self, process: Process) -> contextvars.Context:
        """A context for handles of this process that nobody of it has made."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return context

    def kill(self, process: Process) -> None:
        """Ends a process at once."""
        if process.alive:
            process.alive = False
            self.note("kill", process)
            self._graveyard.append(process.held)
            for tell in self.on_kill:
                tell(process)

    def stop_process(self, process: Process) -> None:
        """SIGSTOP."""
        process.stopped = True
        self.note("stop", process)

    def continue_process(self, process: Process) -> None:
        """SIGCONT: what could not run meanwhile is ready."""
        process.stopped = False
        self.note("continue", process)
        self._soon += process.held
        process.held = []

    def note(self, what: str, process: Process | None = None) -> None:
        """Adds an event to the trace."""
        self.trace.append((self.now, (process or PROCESS.get()).name, what))

    # What an event loop is

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Handle(callback, args, self, context)
        timer._when = when
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, timer))
        return timer

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time has come."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{PROCESS.get().name}: {context.get('message')}: {error!r}")
        if isinstance(error, BaseException) and error.__traceback__ is not None:
            self._graveyard.append(error)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        process, future = PROCESS.get(), self.create_future()
        lane = executor if isinstance(executor, SimExecutor) else SimExecutor()
        at = max(self.now + self.disk_delay(), lane.busy_until)
        lane.busy_until = at

        def job() -> None:
            self._work(process, future, func, args)

        lane.jobs.append(job)
        self.call_at(at, self._next_job, lane)
        return future

    @staticmethod
    def _next_job(lane: SimExecutor) -> None:
        if lane.jobs:
            lane.jobs.popleft()()

    def _work(
        self,
        process: Process,
        future: "asyncio.Future[T]",
        func: Callable[..., T],
        args: tuple[Any, ...],
    ) -> None:
        result, error = None, None
        self.blocking = process
        try:
            result = func(*args)
        except Killed as death:
            self._graveyard.append(death)
            self.blocking = process
            self.kill(process)
            return
        except BaseException as failure:  # noqa: BLE001 - raised where it is awaited
            error = failure
        finally:
            self.blocking = None
        self.call_at(self.now + self.disk_delay(), settle, future, result, error)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None,
                                **_: Any) -> Any:  # fmt: skip
        return await self.network.connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, *,
                            sock: Any = None, **_: Any) -> Any:  # fmt: skip
        if sock is not None:
            host, port = sock.getsockname()[:2]
        return self.network.listen(protocol_factory, host, port)

    def _run_once(self) -> None:
        """Runs handles until the loop is told to stop."""
        soon, timers, draw = self._soon, self._timers, self.rng.random
        while not self._stopping:
            if not soon:
                while timers and timers[0][2]._cancelled:
                    heapq.heappop(timers)
                if not timers:
                    raise Deadlock("; ".join(self._waiting()))
                if timers[0][0] > self.now:
                    self.now = timers[0][0]
            while timers and timers[0][0] <= self.now:
                timer = heapq.heappop(timers)[2]
                if not timer._cancelled:
                    soon.append(timer)
            if not soon:
                continue
            at = int(draw() * len(soon)) if self.shuffled else 0
            handle = soon.pop(at)
            if not handle._cancelled:
                self._step(handle)

    def _step(self, handle: _Handle) -> None:
        process = handle.process
        if self.before_step is not None and process.alive and not process.stopped:
            self.before_step(process)
        if not process.alive:
            self._graveyard.append(handle)
            return
        if process.stopped:
            process.held.append(handle)
            return
        process.steps += 1
        self.steps += 1
        self.now += STEP_S
        callback = handle._callback
        self.trace.append((self.now, process.name, _name_of(callback)))
        try:
            handle._context.run(callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as an event loop does
            self.call_exception_handler({"message": _name_of(callback), "exception": error})

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        self._owners[id(agen)] = PROCESS.get()

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        owner = self._owners.pop(id(agen), WORLD)
        if owner.alive:
            self.call_soon(self.create_task, agen.aclose(), context=self.context_of(owner))
        else:
            self._graveyard.append(agen)

    def _waiting(self) -> list[str]:
        return [
            f"{task.get_name()} in {getattr(task.get_coro(), '__qualname__', '?')}"
            for task in self.tasks
            if not task.done()
        ]


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None
) -> Any:
    assert isinstance(loop, SimLoop)
    return _Task(coro, loop, context)


def settle(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    """Tells whoever still waits for the future how it ended."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _name_of(callback: Any) -> str:
    owner = getattr(callback, "__self__", None)
    if owner.__class__ is _Task:
        coroutine = owner.get_coro()
        return str(getattr(coroutine, "__qualname__", type(coroutine).__name__))
    name = getattr(callback, "__qualname__", None)
    return type(callback).__name__ if name is None else str(name)
