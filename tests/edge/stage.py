"""A collector as a process of its own over the embedded store, and load for it: what the programs
of this folder that measure have in common.
"""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dandelion.cli.embedded_store import EmbeddedStore
from dandelion.params import KEY_BYTES, MEDIA_REPORT, MESSAGE_VERSION, REPORT_HEADER_BYTES
from tests.bench.load import Job, Source

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"


@dataclass
class Stage:
    """A running collector with one open round of `slots` words."""

    process: "subprocess.Popen[bytes]"
    port: int
    round_id: bytes
    slots: int

    @property
    def size(self) -> int:
        """Bytes of a report."""
        return REPORT_HEADER_BYTES + 4 * self.slots

    @property
    def head(self) -> bytes:
        """What stands before a report on the wire."""
        return (
            f"POST /v1/rounds/{self.round_id.hex()}/reports HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Content-Type: {MEDIA_REPORT}\r\nContent-Length: {self.size}\r\n\r\n"
        ).encode()

    def state(self) -> dict[str, Any]:
        """What the process says about itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"state\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def steady(self, rate: float, seconds: float) -> Source:
        """Reports under fresh keys at a steady rate, whether or not earlier ones are answered.

        Random bytes: a collector cannot tell them from masked ones. With the top bits clear, every
        key is below the field's prime.
        """
        head, began = self.head, time.monotonic()
        payload = secrets.token_bytes(4 * self.slots)
        prefix = bytes([MESSAGE_VERSION]) + self.round_id
        count, sent = int(rate * seconds), 0

        def source(now: float) -> Job | float | None:
            nonlocal sent
            if sent >= count:
                return None
            due = began + sent / rate
            if due > now:
                return due
            sent += 1
            key = bytearray(secrets.token_bytes(KEY_BYTES))
            key[-1] &= 0x3F
            return Job(head, prefix + bytes(key) + payload, sent, due)

        return source


@contextmanager
def stage(slots: int, **limits: float) -> Iterator[Stage]:
    """A collector over an embedded store, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        store = EmbeddedStore(Path(folder))
        store.start()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.edge.server", "collector", "--slots", str(slots)),
                *("--redis-url", store.url, "--limits", json.dumps(limits)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            where = json.loads(process.stdout.readline())
            yield Stage(process, where["port"], bytes.fromhex(where["round"]), slots)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)
            store.stop()
