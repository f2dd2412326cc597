"""Pins and policy: what can be written down, and what cannot."""

from dataclasses import replace
from pathlib import Path

import pytest

from client_py.config import ClientConfig, ConfigError, PinnedConfig, Policy
from tests.client.builders import Deployment

TEXT = """
[deployment]
endpoint = "https://collector.example"
collector = "{0}"
helpers = ["{1}", "{2}"]

[policy]
epsilon_round = 2
cohort_min = 500
"""
KEYS = [f"{digit}" * 64 for digit in "123"]
GOOD = TEXT.format(*KEYS)


def test_a_file_says_whom_and_how_far() -> None:
    """What is left out has the documented default."""
    config = ClientConfig.parse(GOOD)
    assert config.pinned.helpers == (b"\x22" * 32, b"\x33" * 32)
    assert config.pinned.suites == (1, 2)
    assert config.policy == Policy(epsilon_round=2, cohort_min=500)
    assert Policy().cohort_min == 1_000


def test_a_saved_configuration_is_read_back(tmp_path: Path) -> None:
    """`save` and `load` are inverse, whatever the policy."""
    config = ClientConfig(
        replace(Deployment().config("https://Example.org:8443/"), suites=(2,)),
        Policy(7, 0.25, 1e-9, 3_600, 0.125, 1.5, 86_400),
    )
    config.save(tmp_path / "client.toml")
    assert ClientConfig.load(tmp_path / "client.toml") == config
    assert config.pinned.endpoint == "https://example.org:8443"


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("[deployment]", "[deployment", "TOML"),
        ("[deployment]", "[other]", "the file"),
        ("collector = ", "# ", "deployment.collector"),
        ("helpers = ", "# ", "deployment.helpers"),
        ('collector = "1', 'collector = "x', "deployment.collector"),
        ('collector = "11', 'collector = "1', "deployment.collector"),
        ('collector = "11', 'collector = "', "deployment.collector"),
        ('helpers = ["2', "helpers = [2, " + '"2', "deployment.helpers"),
        ("1" * 64, "2" * 64, "helpers"),
        ("3" * 64, "2" * 64, "helpers"),
        (f', "{KEYS[2]}"', "", "helpers"),
        ("[policy]", 'scheme = "pairwise"\n[policy]', "deployment.scheme"),
        ("[policy]", "suites = [3]\n[policy]", "suites"),
        ("[policy]", "suites = []\n[policy]", "suites"),
        ("[policy]", "suites = 1\n[policy]", "deployment.suites"),
        ("[policy]", "colour = 1\n[policy]", "deployment"),
        ("https://collector.example", "ftp://collector.example", "endpoint"),
        ("https://collector.example", "collector.example", "endpoint"),
        ("https://collector.example", "https://collector.example/v1", "endpoint"),
        ("https://collector.example", "https://me:pw@collector.example", "endpoint"),
        ("https://collector.example", "https://collector.example:99999", "endpoint"),
        ("https://collector.example", "https://collector.example?x=1", "endpoint"),
        ("epsilon_round = 2", "epsilon_round = 0", "epsilon_round"),
        ("epsilon_round = 2", "epsilon_round = nan", "epsilon_round"),
        ("epsilon_round = 2", "epsilon_round = inf", "epsilon_round"),
        ("[policy]", "suites = [true]\n[policy]", "suites"),
        ("epsilon_round = 2", 'epsilon_round = "2"', "policy.epsilon_round"),
        ("epsilon_round = 2", "delta = 1.0", "delta"),
        ("epsilon_round = 2", "participation = 1.5", "participation"),
        ("epsilon_round = 2", "period_s = 0", "period_s"),
        ("epsilon_round = 2", "period_s = 1.5", "policy.period_s"),
        ("epsilon_round = 2", "generous = true", "policy"),
        ("cohort_min = 500", "cohort_min = 0", "cohort_min"),
        ("cohort_min = 500", "cohort_min = true", "policy.cohort_min"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(old: str, new: str, named: str) -> None:
    """A misspelt key must not silently become a default."""
    assert old in GOOD
    with pytest.raises(ConfigError, match=named):
        ClientConfig.parse(GOOD.replace(old, new))


def test_fewer_than_two_helpers_cannot_be_pinned() -> None:
    """With one helper its operator could read everything with the collector."""
    pins = Deployment().config()
    with pytest.raises(ConfigError, match="at least 2"):
        PinnedConfig(pins.endpoint, pins.collector, pins.helpers[:1])


def test_epsilon_becomes_rho_and_rho_adds_up() -> None:
    """Two rounds of epsilon 1 cost less than epsilon 2 together, so the period holds several."""
    policy = Policy(epsilon_round=1.0, epsilon_period=2.0)
    assert 3 * policy.rho_round_max < policy.rho_period_max < 4 * policy.rho_round_max
