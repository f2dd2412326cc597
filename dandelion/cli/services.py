"""`dandelion up`, `collector`, `helper`, `keys` and `config`: an operator's commands."""

import asyncio
import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import typer

from client_py.config import ClientConfig, Policy
from client_py.config import ConfigError as ClientConfigError
from collector.app import run as run_collector
from collector.config import load_config as load_collector
from collector.tokens import Scope, issue, revoke
from dandelion.cli.asking import seconds
from dandelion.cli.demo_page import DemoPage
from dandelion.cli.demo_rounds import EPSILON_PERIOD, SCOPE, DemoRounds
from dandelion.cli.deployment import FOLDER
from dandelion.cli.http import Api
from dandelion.cli.output import Fault, err, out, print_fields, print_json
from dandelion.cli.stack import Settings, Stack, running
from dandelion.service.config import ConfigError
from dandelion.service.identity import StateError, init_state
from helper.app import run as run_helper
from helper.config import load_config as load_helper

keys = typer.Typer(no_args_is_help=True, help="Identities and tokens.")
config = typer.Typer(no_args_is_help=True, help="Configuration files.")

_DEFAULT_PORT: Final = 8700
_ERRORS: Final = (
    ClientConfigError,
    ConfigError,
    StateError,
    OSError,
)
ConfigFile = Annotated[Path, typer.Option(help="TOML file.", exists=True, dir_okay=False)]


def up(
    folder: Annotated[Path, typer.Option(help="Where all state goes.")] = FOLDER,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_531,
            help="Public; the next four are admin, two helpers, demo page. 0: free ones.",
        ),
    ] = _DEFAULT_PORT,
    scope: Annotated[list[str] | None, typer.Option(help="Budget scope; may be repeated.")] = None,
    cohort_min: Annotated[int, typer.Option(min=1, help="The helpers' floor.")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="Collector processes.")] = 1,
    demo: Annotated[
        bool, typer.Option("--demo", help="Serve the demo page, and hold rounds for it.")
    ] = False,
    people: Annotated[
        int, typer.Option(min=1, max=100_000, help="Simulated people beside the page.")
    ] = 2_000,
    round_: Annotated[
        str, typer.Option("--round", help="How long a round of the demo page is open.")
    ] = "60s",
    page: Annotated[
        Path | None, typer.Option(help="Folder of the built page; else that of the checkout.")
    ] = None,
) -> None:
    """Run a collector, two helpers and a store on this machine until Control-C.

    For a laptop: whoever owns the machine owns all parties, so nothing is hidden from that person.
    State stays in the folder and is found again. DANDELION_REDIS_URL names another store.
    """
    settings = Settings(
        folder=folder,
        scopes=tuple(scope or ["default"]),
        cohort_min=cohort_min,
        policy=Policy(cohort_min=cohort_min),
        ports=(port, port + 1, port + 2, port + 3) if port else (0, 0, 0, 0),
        redis_url=os.environ.get("DANDELION_REDIS_URL") or None,
        workers=workers,
    )
    if not demo:
        with running(settings) as stack:
            _print_up(stack)
            _wait(stack)
        return
    duration_s = seconds(round_)
    if people < cohort_min:
        raise Fault("fewer people than --cohort-min: no round would ever be unmasked", code=2)
    site = DemoPage.open(port + 4 if port else 0, page)
    settings = replace(
        settings,
        scopes=(*settings.scopes, SCOPE),
        allowed_origins=(site.origin,),
        epsilon_period=EPSILON_PERIOD,
        # A browser on this page comes back as soon as there may be a new round.
        collector={"pace": {"window_min_s": 1}},
    )
    with running(settings) as stack:
        _print_up(stack, {"demo page": site.origin})
        client = stack.client_config
        rounds = DemoRounds(
            Api(stack.deployment),
            client,
            cohort_min=cohort_min,
            people=people,
            duration_s=duration_s,
        )
        asyncio.run(site.serve(rounds, client, stack.failed))
        err.print("stopping")


def _print_up(stack: Stack, more: Mapping[str, object] = MappingProxyType({})) -> None:
    deployment = stack.deployment
    print_fields(
        {
            "public": deployment.public,
            "admin": deployment.admin,
            "admin token": deployment.token_file,
            "client configuration": deployment.client_config,
            "processes": ", ".join(f"{k} {v}" for k, v in stack.processes().items()),
            **more,
        }
    )
    err.print("Control-C stops everything.")


def _wait(stack: Stack) -> None:
    try:
        while not (failed := stack.failed()):
            time.sleep(0.5)
    except KeyboardInterrupt:
        err.print("stopping")
        return
    raise Fault(failed)


def collector(
    config: ConfigFile,
    ingest_only: Annotated[
        bool, typer.Option(help="A further ingest process beside a running collector.")
    ] = False,
) -> None:
    """Run a collector until SIGTERM: public and admin listener, rounds, ingest processes."""
    try:
        run_collector(config, ingest_only=ingest_only)
    except _ERRORS as error:
        raise Fault(str(error)) from None


def helper(config: ConfigFile) -> None:
    """Run a helper until SIGTERM."""
    try:
        run_helper(config)
    except _ERRORS as error:
        raise Fault(str(error)) from None


@keys.command("collector")
def keys_collector(state_dir: Path, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Print a collector's identity; make it if there is none yet."""
    _identity(state_dir, json=json)


@keys.command("helper")
def keys_helper(state_dir: Path, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Print a helper's identity; make it if there is none yet."""
    _identity(state_dir, json=json)


def _identity(state_dir: Path, *, json: bool) -> None:
    try:
        identity = init_state(state_dir).hex()
    except _ERRORS as error:
        raise Fault(str(error)) from None
    if json:
        print_json({"identity": identity})
    else:
        out.print(identity, soft_wrap=True)


@keys.command("token")
def keys_token(
    state_dir: Annotated[Path, typer.Argument(help="The collector's.")],
    name: Annotated[str, typer.Argument(help="What you call it.")],
    scope: Annotated[list[Scope], typer.Option(help="May be repeated.")],
    lifetime: Annotated[str, typer.Option(help="Such as 12h or 90d.")] = "90d",
) -> None:
    """Make a bearer token for the admin listener. It is printed once and stored only as a hash."""
    try:
        token = issue(state_dir, name, scope, lifetime_s=seconds(lifetime), now=int(time.time()))
    except (ValueError, OSError) as error:
        raise Fault(str(error)) from None
    out.print(token, markup=False, soft_wrap=True)


@keys.command("revoke")
def keys_revoke(state_dir: Path, token_id: str) -> None:
    """End a token at once. Its id is the part between the underscores."""
    if not revoke(state_dir, token_id):
        raise Fault(f"no token has the id {token_id}")


@config.command("show")
def config_show(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Read a collector's, helper's or client's file and print all of it, defaults included.

    Says what is wrong with it otherwise. Tokens are not shown.
    """
    try:
        kind, values = _read_config(file)
    except (*_ERRORS, tomllib.TOMLDecodeError) as error:
        raise Fault(str(error)) from None
    if json:
        print_json({"kind": kind, "settings": values})
    else:
        print_fields({"a configuration of": f"a {kind}"} | dict(_leaves(values)))


def _read_config(file: Path) -> tuple[str, dict[str, object]]:
    keys_there = tomllib.loads(file.read_text("utf-8")).keys()
    if "deployment" in keys_there:
        client = ClientConfig.load(file)
        return "client", tomllib.loads(client.dump())
    secret = {"token": True}
    if "listen" in keys_there:
        return "helper", load_helper(file).model_dump(mode="json", exclude={"token_sha256"})
    collector = load_collector(file)
    return "collector", collector.model_dump(mode="json", exclude={"helpers": {"__all__": secret}})


def _leaves(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value, start=1):
                yield from _leaves(item, f"{above}{name} {number}.")
        elif value is not None:
            yield above + name, value
