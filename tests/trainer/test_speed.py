from __future__ import annotations

import pytest
import torch

from engine.model.card import Architecture
from trainer.config import DataConfig, NetworkConfig, RunConfig
from trainer.speed import ceiling_pairs_per_s, flops_per_pair, matrix_rate


def test_the_published_generator_has_its_known_number_of_operations(config: RunConfig) -> None:
    data = DataConfig(train_a=config.data.train_a, train_b=config.data.train_b)
    published = flops_per_pair(RunConfig(data=data))
    # 99.1 GFLOP a forward pass at 256x256, six passes, three times; discriminators add a few percent.
    assert published == pytest.approx(6 * 3 * 99.1e9, rel=0.1)
    assert published > 6 * 3 * 99.1e9


def test_wider_networks_have_more_operations(config: RunConfig) -> None:
    wide = RunConfig(data=config.data, networks=NetworkConfig(architecture=Architecture(blocks=1, ngf=16), ndf=16))
    assert flops_per_pair(wide) > 5 * flops_per_pair(config)
    assert ceiling_pairs_per_s(config, torch.device("cpu")) > 0


def test_the_matrix_rate_is_plausible() -> None:
    assert 1e8 < matrix_rate(torch.device("cpu"), torch.float32) < 1e14
