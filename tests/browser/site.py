"""A web site of its own origins that serves the test page and the built package.

Every port is an origin with storage of its own, and all of them are one site, so that a browser
serves any number of clients from few processes.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Self

from aiohttp import web

HERE: Final = Path(__file__).resolve().parent
PACKAGE: Final = HERE.parents[1] / "wasm_stub"
DIST: Final = PACKAGE / "dist"

WITH_WASM: Final = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src *"
WITHOUT_WASM: Final = "default-src 'self'; script-src 'self'; connect-src *"
_PAGE: Final = '<!doctype html><title>A page</title><script src="{script}"></script><p>A page.'
_SCRIPT: Final = "text/javascript"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """`with` it, `origins` are served on the loopback interface. `paths` is what was asked for."""

    def __init__(self, origins: int = 1, *, files: Mapping[str, Path] | None = None) -> None:
        self._count = origins
        self._files = dict(files or {})
        self.origins: list[str] = []
        self.paths: list[str] = []
        app = web.Application()
        app.router.add_get("/", _page(WITH_WASM, "/page.js"))
        app.router.add_get("/strict", _page(WITHOUT_WASM, "/page.js"))
        app.router.add_get("/-classic", _page(WITH_WASM, "/sdk/dandelion.iife.js"))
        app.router.add_get("/strict-classic", _page(WITHOUT_WASM, "/sdk/dandelion.iife.js"))
        app.router.add_get("/elsewhere", _page(WITH_WASM, "/none.js"))
        app.router.add_get("/none.js", self._none)
        app.router.add_get("/favicon.ico", self._none)
        app.router.add_get("/{name}.js", self._own)
        app.router.add_get("/files/{name}", self._file)
        app.router.add_get("/sdk/{path:.+}", self._built)
        app.on_response_prepare.append(self._note)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        for _ in range(self._count):
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.origins = [f"http://{host}:{port}" for host, port in self._runner.addresses]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _note(self, request: web.Request, _: web.StreamResponse) -> None:
        self.paths.append(request.path)

    async def _none(self, _: web.Request) -> web.Response:
        return web.Response(content_type=_SCRIPT)

    async def _own(self, request: web.Request) -> web.FileResponse:
        return _script(HERE / f"{request.match_info['name']}.js")

    async def _built(self, request: web.Request) -> web.Response:
        content = built().get(request.match_info["path"])
        if content is None:
            raise web.HTTPNotFound
        return web.Response(body=content, content_type=_SCRIPT)

    async def _file(self, request: web.Request) -> web.FileResponse:
        return _script(self._files[request.match_info["name"]])


@cache
def built() -> dict[str, bytes]:
    """The scripts of the built package as they were when first asked for, by path."""
    return {str(path.relative_to(DIST)): path.read_bytes() for path in DIST.rglob("*.js")}


def _page(policy: str, script: str) -> Handler:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(
            text=_PAGE.format(script=script),
            content_type="text/html",
            headers={"Content-Security-Policy": policy},
        )

    return serve


def _script(path: Path) -> web.FileResponse:
    return web.FileResponse(path, headers={"Content-Type": _SCRIPT})
