"""How a configuration says that the store is a cluster."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from collector.config import Config

CLUSTER = "redis+cluster://10.0.0.1:6379,10.0.0.2:6379"
SINGLE = "unix:///run/store.sock"


def config(**changes: Any) -> Config:
    """A configuration with two helpers."""
    helpers = [{"url": "http://h", "identity": f"{number:064x}", "token": "t"} for number in (1, 2)]
    fields = {
        "state_dir": Path("state"),
        "public": {"port": 0},
        "admin": {"port": 0},
        "helpers": helpers,
    }
    return Config.model_validate(fields | changes)


@pytest.mark.parametrize(
    "changes, replicas",
    [
        ({"redis_url": SINGLE}, 0),
        ({"redis_url": SINGLE, "replicas_acknowledge": 0}, 0),
        ({"redis_url": CLUSTER}, 1),
        ({"redis_url": CLUSTER, "replicas_acknowledge": 0}, 0),
        ({"redis_url": "rediss+cluster://a", "replicas_acknowledge": 2}, 2),
    ],
)
def test_a_cluster_waits_for_a_replica_unless_told(changes: dict[str, Any], replicas: int) -> None:
    """On a single server nobody is waited for."""
    assert config(**changes).replicas == replicas


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"redis_url": "redis+cluster://a/1"}, "redis_url"),
        ({"redis_url": "cluster://a"}, "redis_url"),
        ({"redis_url": CLUSTER, "replicas_acknowledge": -1}, "replicas_acknowledge"),
        ({"redis_url": SINGLE, "replicas_acknowledge": 1}, "replicas_acknowledge is for"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    """The message names the setting."""
    with pytest.raises(ValidationError, match=fault):
        config(**changes)
