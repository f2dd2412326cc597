"""What a client holds fast and what it allows (docs/protocol.md section 14, steps 1 to 3).

`PinnedConfig` says whom it deals with: one deployment, its scheme, suites, collector and exact
helpers. `Policy` says how far it goes: floors, the coin, and the budget. Both are values that
compare and hash, and both are kept in one TOML file.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from dandelion.params import HELPERS_MAX, HELPERS_MIN, KEY_BYTES, SCHEME_ONESHOT, SUITES
from dandelion.privacy import accounting

_SCHEMES: Final = {"oneshot": SCHEME_ONESHOT}
_DAY_S: Final = 86_400

# Far beyond any promise; it keeps the conversion to rho finite.
_EPSILON_MAX: Final = 1_000_000

_T = TypeVar("_T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and the reason."""


@dataclass(frozen=True)
class PinnedConfig:
    """One deployment as the client knows it. Anything else is refused (`pin_mismatch`).

    Attributes:
        endpoint: the collector's origin, `https://host[:port]`.
        collector: its Ed25519 identity, 32 bytes.
        helpers: the exact identities of all helpers, 32 bytes each, ascending.
        suites: the suites that may be used.
        scheme: the one scheme that may be used.
    """

    endpoint: str
    collector: bytes
    helpers: tuple[bytes, ...]
    suites: tuple[int, ...] = SUITES
    scheme: int = SCHEME_ONESHOT

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", _origin(self.endpoint))
        object.__setattr__(self, "helpers", tuple(sorted(self.helpers)))
        if self.scheme not in _SCHEMES.values():
            raise ConfigError("scheme: not known")
        whole = all(type(suite) is int for suite in self.suites)
        if not self.suites or not whole or not set(self.suites) <= set(SUITES):
            raise ConfigError("suites: none, or one that is not known")
        if not HELPERS_MIN <= len(self.helpers) <= HELPERS_MAX:
            raise ConfigError(f"helpers: at least {HELPERS_MIN}, at most {HELPERS_MAX}")
        if {len(key) for key in (self.collector, *self.helpers)} != {KEY_BYTES}:
            raise ConfigError("collector, helpers: an identity has 32 bytes")
        if len({self.collector, *self.helpers}) != len(self.helpers) + 1:
            raise ConfigError("helpers: two identities are equal")

    @property
    def m(self) -> int:
        """Number of helpers."""
        return len(self.helpers)


@dataclass(frozen=True)
class Policy:
    """What the person behind the client allows.

    Attributes:
        cohort_min: the least cohort_min of a round.
        epsilon_round, delta: the most that one round may cost; turned into rho.
        lifetime_max_s: the longest time from `opens` to `expires`, after which keys are gone.
        participation: probability of taking part in a round, decided by a coin once per round.
        epsilon_period, period_s: the most that all rounds of the deployment may cost together in
            any stretch of this many seconds, at the same delta.
    """

    cohort_min: int = 1_000
    epsilon_round: float = 1.0
    delta: float = 1e-8
    lifetime_max_s: int = 7 * _DAY_S
    participation: float = 1.0
    epsilon_period: float = 4.0
    period_s: int = 30 * _DAY_S

    def __post_init__(self) -> None:
        if self.cohort_min < 1:
            raise ConfigError("cohort_min: at least 1")
        if not 0 < self.delta < 1:
            raise ConfigError("delta: between 0 and 1")
        for epsilon in (self.epsilon_round, self.epsilon_period):
            # Written so that nan is refused, too.
            if not 0 < epsilon <= _EPSILON_MAX:
                raise ConfigError(f"epsilon_round, epsilon_period: above 0, at most {_EPSILON_MAX}")
        if not 0 <= self.participation <= 1:
            raise ConfigError("participation: between 0 and 1")
        if self.lifetime_max_s < 1 or self.period_s < 1:
            raise ConfigError("lifetime_max_s, period_s: at least 1")

    @cached_property
    def rho_round_max(self) -> int:
        """The most that one round may cost, in units of 2^-40 rho."""
        return accounting.rho_units_for_epsilon(self.epsilon_round, self.delta)

    @cached_property
    def rho_period_max(self) -> int:
        """The most that all rounds of a period may cost, in the same units. rho adds up."""
        return accounting.rho_units_for_epsilon(self.epsilon_period, self.delta)


@dataclass(frozen=True)
class ClientConfig:
    """A client's configuration file: one deployment and one policy."""

    pinned: PinnedConfig
    policy: Policy = Policy()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the TOML of `dump`.

        Raises:
            ConfigError: naming the key.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"not TOML: {error}") from None
        _only(document, {"deployment", "policy"}, "the file")
        deployment = _table(document, "deployment")
        _only(deployment, {"endpoint", "scheme", "suites", "collector", "helpers"}, "deployment")
        scheme = _SCHEMES.get(_get(deployment, "scheme", str, "oneshot"))
        if scheme is None:
            raise ConfigError("deployment.scheme: not known")
        pinned = PinnedConfig(
            endpoint=_get(deployment, "endpoint", str),
            collector=_identity(_get(deployment, "collector", str), "deployment.collector"),
            helpers=tuple(
                _identity(each, "deployment.helpers") for each in _get(deployment, "helpers", list)
            ),
            suites=tuple(_get(deployment, "suites", list, list(SUITES))),
            scheme=scheme,
        )
        return cls(pinned, _policy(_table(document, "policy") if "policy" in document else {}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file. Raises as `parse`, and OSError."""
        return cls.parse(path.read_text(encoding="utf-8"))

    def dump(self) -> str:
        """The configuration as TOML."""
        pinned = self.pinned
        scheme = next(name for name, number in _SCHEMES.items() if number == pinned.scheme)
        helpers = "".join(f"    {json.dumps(each.hex())},\n" for each in pinned.helpers)
        policy = "".join(
            f"{each.name} = {getattr(self.policy, each.name)!r}\n" for each in fields(Policy)
        )
        return (
            "# Whom this client deals with. Anything else is refused.\n"
            "[deployment]\n"
            f"endpoint = {json.dumps(pinned.endpoint)}\n"
            f"scheme = {json.dumps(scheme)}\n"
            f"suites = {list(pinned.suites)}\n"
            f"collector = {json.dumps(pinned.collector.hex())}\n"
            f"helpers = [\n{helpers}]\n\n"
            "# What this client allows.\n"
            f"[policy]\n{policy}"
        )

    def save(self, path: Path) -> None:
        """Writes a file. Raises OSError."""
        path.write_text(self.dump(), encoding="utf-8")


def _policy(table: Mapping[str, object]) -> Policy:
    known = {each.name: each.type for each in fields(Policy)}
    _only(table, set(known), "policy")
    values: dict[str, float | int] = {}
    for name, value in table.items():
        whole = known[name] is int
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ConfigError(f"policy.{name}: not {'an integer' if whole else 'a number'}")
        values[name] = value
    return Policy(**values)  # type: ignore[arg-type]


def _origin(endpoint: str) -> str:
    """An origin without a trailing slash. Paths of the protocol are relative to one origin."""
    try:
        parts = urlsplit(endpoint)
        # Reading the port is what checks it.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if (
        not usable
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "@" in endpoint
    ):
        raise ConfigError("endpoint: not an origin such as https://collector.example")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _identity(value: object, key: str) -> bytes:
    if not isinstance(value, str):
        raise ConfigError(f"{key}: not a string of 64 hexadecimal digits")
    try:
        identity = bytes.fromhex(value)
    except ValueError:
        raise ConfigError(f"{key}: not hexadecimal") from None
    if len(identity) != KEY_BYTES:
        raise ConfigError(f"{key}: an identity has 64 hexadecimal digits")
    return identity


def _get(table: Mapping[str, object], key: str, kind: type[_T], default: _T | None = None) -> _T:
    value = table.get(key, default)
    if value is None:
        raise ConfigError(f"deployment.{key}: missing")
    if not isinstance(value, kind):
        raise ConfigError(f"deployment.{key}: not a {kind.__name__}")
    return value


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    table = document.get(key)
    if not isinstance(table, dict):
        raise ConfigError(f"{key}: missing, or not a table")
    return table


def _only(table: Mapping[str, object], known: set[str], where: str) -> None:
    if not table.keys() <= known:
        raise ConfigError(f"{where}: a key that is not known; known are {', '.join(sorted(known))}")
