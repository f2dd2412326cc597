"""Requests of the command line to a collector: JSON or bytes in and out, problems become faults."""

import asyncio
from typing import Any, Final

import aiohttp

from dandelion.cli.deployment import Deployment
from dandelion.cli.output import Fault
from dandelion.params import PROBLEM_TYPE_PREFIX

_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


class Api:
    """One collector, public and admin. Blocking; for commands only."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def get(self, path: str) -> Any:
        """JSON from the public listener."""
        return asyncio.run(request("GET", self._deployment.public + path))

    async def get_async(self, path: str) -> Any:
        """As `get`, inside a running loop."""
        return await request("GET", self._deployment.public + path)

    def get_bytes(self, path: str) -> bytes:
        """Bytes from the public listener."""
        return asyncio.run(self._bytes_async(path))

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """JSON from the admin listener."""
        return asyncio.run(self.admin_async(method, path, body))

    async def envelope(self, round_id: str) -> bytes:
        """The envelope of a round, inside a running loop."""
        return await self._bytes_async(f"/v1/rounds/{round_id}")

    async def release(self, round_id: str) -> bytes:
        """The artefact of a round, inside a running loop."""
        return await self._bytes_async(f"/v1/releases/{round_id}")

    async def _bytes_async(self, path: str) -> bytes:
        return bytes(await request("GET", self._deployment.public + path, raw=True))

    async def admin_async(self, method: str, path: str, body: object = None) -> Any:
        """As `admin`, inside a running loop."""
        if self._deployment.admin is None:
            raise Fault("no admin address: set DANDELION_ADMIN_URL or give --admin")
        url = self._deployment.admin.rstrip("/") + path
        return await request(method, url, body=body, token=self._deployment.token())


async def request(
    method: str, url: str, *, body: object = None, token: str | None = None, raw: bool = False
) -> Any:
    """One request.

    Raises:
        Fault: the server cannot be reached, or answered with a problem; the message says which.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session,
            session.request(method, url, json=body, allow_redirects=False) as response,
        ):
            if response.status >= 300:
                raise Fault(await _problem(response))
            return await response.read() if raw else await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Fault(f"cannot reach {url}: {type(error).__name__}") from None
    except ValueError:
        raise Fault(f"{url} did not answer with JSON") from None


async def _problem(response: aiohttp.ClientResponse) -> str:
    try:
        document = await response.json(content_type=None)
        token = str(document["type"]).removeprefix(PROBLEM_TYPE_PREFIX)
        detail = document.get("detail") or document.get("title", "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"the server answered {response.status}"
    return f"{token}: {detail}"
