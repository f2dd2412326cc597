"""The helper's configuration: a TOML file, read once (docs/protocol.md section 11.2).

What a helper signs is decided here and by nobody else: which collectors it serves, which scopes
have a budget, and the floors below which it signs nothing.

Leaves out: the identity seed and the round roots, which live in the state directory only
(`identity`, `roots`).
"""

import hashlib
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from dandelion.params import ANSWER_DELAY_MS, COHORT_MAX_MAX, KEY_UNUSED_S, KEYS_UNUSED_MAX
from dandelion.privacy.accounting import rho_units_for_epsilon
from dandelion.service.config import Hex32, Section, read, tokens_in

_DAY_S: Final = 86_400


Probability = Annotated[float, Field(gt=0, lt=1)]


class _Rho(Section):
    """An amount of rho: epsilon at a delta, or units of 2^-40 (section 16)."""

    epsilon: PositiveFloat | None = None
    delta: Probability | None = None
    rho_units: PositiveInt | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_epsilon = self.epsilon is not None and self.delta is not None
        if (self.epsilon is None) != (self.delta is None) or by_epsilon == bool(self.rho_units):
            raise ValueError("give either epsilon and delta, or rho_units")
        return self

    @property
    def units(self) -> int:
        """The amount in units of 2^-40 rho, rounded down."""
        if self.epsilon is not None and self.delta is not None:
            return rho_units_for_epsilon(self.epsilon, self.delta)
        return self.rho_units or 0


class RoundRho(_Rho):
    """The most rho one round may cost (`floor_noise`)."""


class Floors(Section):
    """What a descriptor must hold to be signed, whatever its scope."""

    cohort_min: Annotated[int, Field(ge=1, le=COHORT_MAX_MAX)] = 1_000
    lifetime_max_s: PositiveInt = 14 * _DAY_S
    per_round: RoundRho = RoundRho(epsilon=4.0, delta=1e-8)


class Scope(_Rho):
    """A population's budget: this much rho for the rounds of each period of `period_s` seconds."""

    period_s: PositiveInt
    open_rounds_max: PositiveInt = 16


class Config(Section):
    """Everything a helper is told. Paths are relative to the file they were read from."""

    listen: str
    state_dir: Path
    collectors: Annotated[tuple[Hex32, ...], Field(min_length=1)]
    token_sha256: tuple[Hex32, ...] = ()
    token_file: Path | None = None
    scopes: dict[str, Scope]
    floors: Floors = Floors()
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    answer_delay_ms: PositiveInt = ANSWER_DELAY_MS
    key_unused_s: PositiveInt = KEY_UNUSED_S
    keys_unused_max: PositiveInt = KEYS_UNUSED_MAX
    asks_at_once_max: PositiveInt = 4
    connections_max: PositiveInt = 1_000
    answers_kept_s: PositiveInt = 7 * _DAY_S
    sweep_s: PositiveFloat = 5.0
    drain_s: PositiveFloat = 20.0

    @model_validator(mode="after")
    def _can_listen_and_admit(self) -> Self:
        if not self.token_sha256 and self.token_file is None:
            raise ValueError("no token: give token_sha256 or token_file")
        self.address  # noqa: B018 - reading it judges it
        return self

    @property
    def address(self) -> tuple[str, int] | Path:
        """Host and port, or the path of a Unix socket (`unix:PATH`)."""
        if self.listen.startswith("unix:"):
            return Path(self.listen.removeprefix("unix:"))
        host, colon, port = self.listen.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError("listen is HOST:PORT or unix:PATH")
        return host.strip("[]"), int(port)

    def collector_identities(self) -> frozenset[bytes]:
        """Ed25519 identities of the collectors this helper serves."""
        return frozenset(bytes.fromhex(text) for text in self.collectors)

    def token_hashes(self) -> tuple[bytes, ...]:
        """SHA-256 of every accepted bearer token.

        Raises:
            ConfigError: the token file cannot be read or has no token in it.
        """
        hashes = [bytes.fromhex(text) for text in self.token_sha256]
        if self.token_file is not None:
            tokens = tokens_in(self.token_file)
            hashes += [hashlib.sha256(token.encode()).digest() for token in tokens]
        return tuple(hashes)


def load_config(path: Path) -> Config:
    """Reads and judges a TOML file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something that cannot be.
    """
    config = read(path, Config)
    base = path.parent
    absolute = {"state_dir": base / config.state_dir}
    if config.token_file is not None:
        absolute["token_file"] = base / config.token_file
    if isinstance(config.address, Path):
        return config.model_copy(update={**absolute, "listen": f"unix:{base / config.address}"})
    return config.model_copy(update=absolute)
