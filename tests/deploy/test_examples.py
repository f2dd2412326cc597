"""The files an operator starts from are read by what they are for."""

from pathlib import Path

from collector.config import load_config as load_collector
from helper.config import load_config as load_helper

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_collector_example_is_a_configuration() -> None:
    """Nothing in it is misspelt or out of range."""
    assert len(load_collector(DEPLOY / "collector.example.toml").helpers) == 2


def test_helper_example_is_a_configuration() -> None:
    """Nothing in it is misspelt or out of range; its floors are the defaults or stricter."""
    config = load_helper(DEPLOY / "helper.example.toml")
    assert config.floors.cohort_min >= 1_000
    assert config.scopes["web"].units > config.floors.per_round.units
