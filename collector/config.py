"""The collector's configuration: a TOML file, read once.

Leaves out: the identity seed (`identity`), and tokens of the admin interface (`tokens`); both live
in the state directory.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from collector.redis_cluster import ClusterAddress
from dandelion.params import COMMIT_REPORTS_MAX, HELPERS_MAX, HELPERS_MIN
from dandelion.service.config import Hex32, Section, read, tokens_in

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?")
_DAY_S: Final = 86_400
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise ValueError("not an origin such as https://example.org")
    return text


def _redis_url(text: str) -> str:
    if "+cluster://" in text:
        ClusterAddress.parse(text)
    elif not text.startswith(_REDIS_SCHEMES):
        raise ValueError("not a redis://, rediss://, unix:// or redis+cluster:// address")
    return text


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("not an http:// or https:// address")
    return text.rstrip("/")


class Listen(Section):
    """Where a listener binds. Port 0 takes a free one, which `ports.json` then names."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)]


class HelperPeer(Section):
    """A helper: where it is, who it is, and how it knows this collector."""

    url: Annotated[str, AfterValidator(_http_url)]
    identity: Hex32
    token: str | None = Field(default=None, repr=False)
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give either token or token_file")
        return self

    def bearer(self) -> str:
        """The bearer token.

        Raises:
            ConfigError: the token file cannot be read or is empty.
        """
        if self.token is not None:
            return self.token
        return tokens_in(self.token_file or Path())[0]


class Lifetimes(Section):
    """Times of a round that a request to open it leaves out, in seconds."""

    open_s: PositiveInt = 3_600
    answer_s: PositiveInt = _DAY_S  # from `closes` to `expires`
    # Between `closes` and the seal: what commits in flight may take.
    seal_grace_s: PositiveFloat = 2.0
    # How often the driver looks at the clock and at the lanes of an open round.
    tick_s: PositiveFloat = 1.0


class Limits(Section):
    """What one process takes on. Times in seconds, sizes in bytes."""

    connections_max: PositiveInt = 10_000
    header_s: PositiveFloat = 10.0
    body_s: PositiveFloat = 10.0
    body_bytes_per_s: PositiveInt = 16_384
    keepalive_s: PositiveFloat = 15.0
    # From the headers of a request to the last byte of its answer.
    request_s: PositiveFloat = 120.0
    linger_s: PositiveFloat = 5.0
    # About a second's worth, and less than connections: those are to hear `overloaded`.
    waiting_reports_max: PositiveInt = 4_096
    waiting_bytes_max: PositiveInt = 268_435_456
    answer_s: PositiveFloat = 20.0
    batch_reports: Annotated[int, Field(ge=1, le=COMMIT_REPORTS_MAX)] = 256
    batch_bytes: PositiveInt = 1_048_576
    batch_delay_s: Annotated[float, Field(ge=0)] = 0.005
    helper_timeout_s: PositiveFloat = 30.0
    helper_retry_max_s: PositiveFloat = 30.0


class PaceConfig(Section):
    """Pace steering: how often all clients together may come."""

    target_per_s: PositiveFloat = 2_000.0
    window_min_s: PositiveInt = 60
    window_max_s: PositiveInt = 6 * 3_600
    retry_s: PositiveInt = 2


class Config(Section):
    """Everything a collector is told. Paths are relative to the file they were read from."""

    state_dir: Path
    redis_url: Annotated[str, AfterValidator(_redis_url)]
    public: Listen
    admin: Listen
    helpers: Annotated[
        tuple[HelperPeer, ...], Field(min_length=HELPERS_MIN, max_length=HELPERS_MAX)
    ]
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    partitions: Annotated[int, Field(ge=1, le=64)] = 1
    # Left out, it is 1 on a cluster.
    replicas_acknowledge: Annotated[int, Field(ge=0, le=16)] | None = None
    allow_lossy: bool = False
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    # How long a process that was told to stop keeps serving while it says that it is not ready.
    probe_s: Annotated[float, Field(ge=0)] = 0.0
    drain_s: PositiveFloat = 20.0
    lifetimes: Lifetimes = Lifetimes()
    limits: Limits = Limits()
    pace: PaceConfig = PaceConfig()

    @property
    def replicas(self) -> int:
        """How many replicas must have a commit before it counts."""
        if self.replicas_acknowledge is not None:
            return self.replicas_acknowledge
        return 1 if "+cluster://" in self.redis_url else 0

    @model_validator(mode="after")
    def _replicas_of_a_cluster(self) -> Self:
        if self.replicas and "+cluster://" not in self.redis_url:
            raise ValueError("replicas_acknowledge is for a redis+cluster:// address")
        return self

    @model_validator(mode="after")
    def _distinct_helpers(self) -> Self:
        if len({helper.identity for helper in self.helpers}) != len(self.helpers):
            raise ValueError("two helpers have one identity")
        return self


def load_config(path: Path) -> Config:
    """Reads and judges a TOML file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something that cannot be.
    """
    config = read(path, Config)
    base = path.parent
    helpers = tuple(
        helper.model_copy(update={"token_file": base / helper.token_file})
        if helper.token_file is not None
        else helper
        for helper in config.helpers
    )
    return config.model_copy(update={"state_dir": base / config.state_dir, "helpers": helpers})
