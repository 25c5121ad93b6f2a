"""A model file carries a generator and its card, and nothing that does not fit is taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Architecture, Card, list_models, read_card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, first_mismatch, load_generator, save_generator

SMALL = Architecture(blocks=1, ngf=2)


def test_a_generator_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    arch = Architecture(blocks=2, ngf=2, affine=True, track_running_stats=True, upsample="resize", learn_residual=True)
    module = ResnetGenerator(arch)
    card = Card(name="n", source_domain="a", target_domain="b", training_size=128, data="d", scores={"kid": 0.5})
    save_generator(tmp_path / "n.safetensors", module, card, torch.float32)
    loaded = load_generator(tmp_path / "n.safetensors")
    assert loaded.card == replace(card, architecture=arch)
    assert read_card(tmp_path / "n.safetensors") == loaded.card
    assert not loaded.module.training
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in loaded.module.state_dict().items())


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path: Path, generator: Generator) -> None:
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_generator(tmp_path / name, generator.module, generator.card, dtype)
    full, half = ((tmp_path / name).stat().st_size for name in ("full", "half"))
    assert half < 0.7 * full
    loaded = load_generator(tmp_path / "half").module
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_the_hash_names_weights_and_card_together(tmp_path: Path) -> None:
    module = ResnetGenerator(SMALL)
    for name, card in (("a", Card(name="a")), ("b", Card(name="a")), ("c", Card(name="c"))):
        save_generator(tmp_path / name, module, card)
    a, b, c = (load_generator(tmp_path / name).sha256 for name in "abc")
    assert a == b != c


def test_a_file_that_is_missing_or_something_else_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a model")
    save_file({"x": torch.zeros(1)}, tmp_path / "bare")
    save_file({"x": torch.zeros(1)}, tmp_path / "torn", metadata={CARD_KEY: "{"})
    save_file({"x": torch.zeros(1)}, tmp_path / "future", metadata={CARD_KEY: '{"format": 2}'})
    sentences = {
        "missing": "There is no model file",
        "text": "not a readable .safetensors",
        "bare": "carries no Solstice card",
        "torn": "torn: ",
        "future": "not a model card of this version",
    }
    for name, sentence in sentences.items():
        with pytest.raises(SetupError, match=sentence) as caught:
            load_generator(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_card_with_fields_it_should_not_have_is_refused() -> None:
    for change in ('"name": "x", "colour": 1', '"nome": "x"'):
        text = Card(name="x").to_json().replace('"name": "x"', change)
        with pytest.raises(ValueError, match="does not fit"):
            Card.from_json(text)


def test_the_first_key_that_does_not_fit_is_named(tmp_path: Path) -> None:
    module = ResnetGenerator(SMALL)
    tensors = module.state_dict()
    good = {key: value.shape for key, value in tensors.items()}
    assert first_mismatch(module, good) is None
    assert first_mismatch(module, good | {"extra": [1]}) == "key extra does not belong to this generator"
    assert (
        first_mismatch(module, {k: v for k, v in good.items() if k != "model.4.bias"}) == "key model.4.bias is missing"
    )
    mismatch = first_mismatch(module, good | {"model.4.bias": [5]})
    assert mismatch == "key model.4.bias has shape [5], expected [4]"
    save_file({**tensors, "extra": torch.zeros(1)}, tmp_path / "m", metadata={CARD_KEY: card_of(module)})
    with pytest.raises(SetupError, match="key extra"):
        load_generator(tmp_path / "m")


def card_of(module: ResnetGenerator) -> str:
    return Card(name="m", architecture=module.arch).to_json()


def test_every_shipped_model_loads_and_says_what_it_is() -> None:
    for name, path in list_models().items():
        card = load_generator(path).card
        assert card.name == name
        assert card.licence
        assert card.data
