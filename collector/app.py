"""The process: configuration, signals, and the event loop around `node.running`."""

import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from collector.config import Config, load_config
from collector.garbage import collected_on_time
from collector.node import Node, running
from collector.store import StoreUnavailable
from dandelion.service.identity import StateError
from dandelion.service.logs import to_stderr

SNAPSHOT_S: Final = 2.0


def run(
    config_path: Path, *, ingest_only: bool = False, worker: int = 0, port: int | None = None
) -> None:
    """Runs a collector until SIGTERM or SIGINT, then drains it.

    Args:
        config_path: a TOML file, see `config`.
        ingest_only: take reports only, beside a first process with the same configuration.
        worker: number of an ingest-only process that the first one has started.
        port: the public port, if it is not the configured one.

    Raises:
        ConfigError: the file cannot be used.
        StateError: the state directory or the store cannot be used.
        OSError: an address cannot be listened on.
    """
    config = load_config(config_path)
    to_stderr()
    try:
        uvloop.run(_main(config, config_path, ingest_only or worker > 0, worker, port))
    except StoreUnavailable as error:
        raise StateError(f"Redis does not answer: {error.kind}") from None


async def _main(
    config: Config, config_path: Path, ingest_only: bool, worker: int, port: int | None
) -> None:
    stop, started = asyncio.Event(), False
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def told() -> None:
        stop.set()
        # A start may have to wait for the store. Nothing has come in yet that needs an answer.
        if not started and task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    orphaned = asyncio.create_task(_orphaned()) if worker else None
    if orphaned is not None:
        orphaned.add_done_callback(lambda _: told())
    command = partial(worker_command, config_path)
    try:
        async with running(
            config, first=not ingest_only, port=port, worker_command=command
        ) as node:
            started = True
            async with collected_on_time():
                if worker == 0:
                    await stop.wait()
                else:
                    await _follow(node, stop)
    except asyncio.CancelledError:
        if started or not stop.is_set():
            raise
    finally:
        if orphaned is not None:
            orphaned.cancel()


async def _orphaned() -> None:
    """Returns when the first process is gone, and with it the other end of standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _follow(node: Node, stop: asyncio.Event) -> None:
    """Sends metrics to the first process until told to stop."""
    sending = asyncio.create_task(_send(node))
    try:
        await stop.wait()
    finally:
        sending.cancel()


async def _send(node: Node) -> None:
    while True:
        line = json.dumps(node.metrics.snapshot()) + "\n"
        await asyncio.to_thread(_print, line)
        await asyncio.sleep(SNAPSHOT_S)


def _print(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def worker_command(config_path: Path, number: int, port: int) -> list[str]:
    """The words that start an ingest-only process."""
    options = ["--config", str(config_path), "--worker", str(number), "--port", str(port)]
    return [sys.executable, "-m", "collector", *options]
