"""The canary receives a share of the jobs, chosen by their ids."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from engine.cli.stream import stream
from engine.stream.canary import Canary

IDS = [f"photos/{number}.jpg" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_jobs_is_the_configured_one(share: float) -> None:
    taken = sum(Canary("new", share).takes(id) for id in IDS)
    assert taken / len(IDS) == pytest.approx(share, abs=0.01)


def test_a_larger_share_includes_the_jobs_of_a_smaller_one() -> None:
    few, many = ({id for id in IDS if Canary("new", share).takes(id)} for share in (0.05, 0.2))
    assert few < many


def test_the_choice_is_the_same_in_every_version() -> None:
    """Workers of two versions may share a group during a roll-out."""
    assert [number for number in range(60) if Canary("new", 0.05).takes(f"job-{number}")] == [1, 4, 25]


@pytest.mark.parametrize(
    ("text", "model", "share"),
    [("new=5%", "new", 0.05), ("a=b/new.safetensors=12.5%", "a=b/new.safetensors", 0.125), ("new=100%", "new", 1.0)],
)
def test_name_and_share_are_parsed(text: str, model: str, share: float) -> None:
    assert Canary.parse(text) == Canary(model, share)
    assert Canary.parse(str(Canary.parse(text))) == Canary.parse(text)


@pytest.mark.parametrize("text", ["", "new", "new=", "=5%", "new=5", "new=0.05", "new=101%", "new=-5%", "new=nan%"])
def test_an_invalid_canary_is_refused(text: str) -> None:
    required = ["--brokers", "b:1", "--group", "g", "--jobs", "j", "--results", "r", "--dead-letters", "d"]
    shown = CliRunner().invoke(stream, [*required, "--model", "summer2winter", "--canary", text])
    assert shown.exit_code == 2
    assert "must be NAME=SHARE%, such as summer2winter=5%" in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr
