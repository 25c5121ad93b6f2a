"""End-to-end test on synthetic domains: train, export, and measure the colours of translations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import GenerateConfig
from engine.model.card import Architecture
from engine.model.weights import load_generator
from engine.runtime.translator import BatchTranslator
from trainer import loop
from trainer.config import LossConfig, NetworkConfig, ScheduleConfig
from trainer.export import Labels, export
from trainer.photos import image_paths, load_photo

STEPS = 400


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, domains: Path) -> tuple[BatchTranslator, BatchTranslator]:
    """Train warm to cold and back, and load both as the engine serves them."""
    from tests.trainer.conftest import tiny_run

    config = replace(
        tiny_run(domains),
        networks=NetworkConfig(architecture=Architecture(blocks=1, ngf=8, upsample="resize"), ndf=8),
        losses=LossConfig(identity=0.1),
        schedule=ScheduleConfig(epochs=STEPS / 10, batch=2, rate=5e-4),
    )
    config = replace(config, machine=replace(config.machine, log_every=40))
    run = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert loop.fit(config, run)
    torch.set_num_threads(threads)
    paths = export(run, run / "models", Labels(domain_a="warm", domain_b="cold"), torch.float32)
    there, back = (BatchTranslator(load_generator(path), GenerateConfig(backend="eager")) for path in paths)
    return there, back


def test_translations_move_most_of_the_way_to_the_other_domain(
    pair: tuple[BatchTranslator, BatchTranslator], domains: Path
) -> None:
    warm, cold = photos(domains / "testA"), photos(domains / "testB")
    for translate, originals, targets in ((pair[0], warm, cold), (pair[1], cold, warm)):
        before, after, goal = (warmth(images) for images in (originals, translate(originals), targets))
        assert (after - before) / (goal - before) > 0.7


def test_there_and_back_is_close_to_the_original(pair: tuple[BatchTranslator, BatchTranslator], domains: Path) -> None:
    warm = photos(domains / "testA")
    there = pair[0](warm)
    error = (pair[1](there).float() - warm.float()).abs().mean()
    distance = (there.float() - warm.float()).abs().mean()
    assert error < distance / 3


def photos(folder: Path) -> Tensor:
    """Load test photos as uint8 [N, 40, 53, 3]."""
    return torch.stack([load_photo(path, load=40) for path in image_paths(folder)])


def warmth(images_NHWC: Tensor) -> float:
    """Mean of red less blue."""
    return float((images_NHWC[..., 0].float() - images_NHWC[..., 2].float()).mean())
