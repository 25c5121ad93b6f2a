from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import SetupError
from engine.model.card import Architecture, read_card
from engine.model.weights import load_generator
from trainer import loop
from trainer.checkpoints import load_checkpoint
from trainer.config import NetworkConfig, RunConfig
from trainer.export import Labels, export
from trainer.exported import architecture_of


@pytest.fixture
def pair(config: RunConfig, tmp_path: Path) -> tuple[Path, Path]:
    short = replace(config, schedule=replace(config.schedule, epochs=0.25))
    loop.fit(short, tmp_path / "first")
    return export(tmp_path / "first", tmp_path / "models", Labels(domain_a="warm", domain_b="cold"), torch.float32)


def test_a_run_starts_from_exported_generators_and_its_card_records_them(
    config: RunConfig, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    # With a rate next to zero, one step leaves the weights where they started.
    schedule = replace(config.schedule, epochs=0.25, rate=1e-12)
    loop.fit(replace(config, start_from=pair, schedule=schedule), tmp_path / "second")

    networks = load_checkpoint(tmp_path / "second").networks
    for name, path in zip(("a_to_b", "b_to_a"), pair, strict=True):
        for tensor, value in load_generator(path).module.state_dict().items():
            torch.testing.assert_close(networks[name][tensor], value, rtol=0, atol=1e-9)
    there, _ = export(tmp_path / "second", tmp_path / "more", Labels())
    first, second = read_card(there).training["started_from"]
    assert (first["name"], second["name"]) == ("warm2cold", "cold2warm")
    assert first["sha256"] == load_generator(pair[0]).sha256
    assert first["training"]["steps"] == 1


def test_instance_norm_can_be_replaced_by_stored_statistics_at_the_start(
    config: RunConfig, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    architecture = replace(config.networks.architecture, track_running_stats=True)
    stored = replace(config, start_from=pair[:1], networks=replace(config.networks, architecture=architecture))
    loop.fit(stored, tmp_path / "stored")

    loop.resume(tmp_path / "stored", replace(stored, schedule=replace(config.schedule, epochs=2.25)))
    networks = load_checkpoint(tmp_path / "stored").networks
    for name in ("a_to_b", "b_to_a"):
        assert networks[name]["model.2.num_batches_tracked"] >= 64
        assert networks[name]["model.2.running_var"].std() > 0


def test_two_generators_of_different_architectures_are_refused(
    config: RunConfig, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    wide = replace(
        config,
        networks=NetworkConfig(architecture=Architecture(blocks=1, ngf=8), ndf=4),
        schedule=replace(config.schedule, epochs=0.25),
    )
    loop.fit(wide, tmp_path / "wide")
    other, _ = export(tmp_path / "wide", tmp_path / "wide-models", Labels())
    assert architecture_of(pair) == config.networks.architecture
    with pytest.raises(SetupError, match="different architectures"):
        architecture_of([pair[0], other])
    with pytest.raises(SetupError, match="does not fit the architecture"):
        loop.fit(replace(config, start_from=(other,)), tmp_path / "misfit")
