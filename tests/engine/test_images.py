"""Images in memory: the same kind comes back, with the result that `convert` writes for the same options."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from engine.archive.convert import convert
from engine.codec.colour import adobe_rgb_icc, srgb_icc
from engine.config import GenerateConfig, PipelineConfig
from engine.images import Translator
from engine.model.weights import Generator
from engine.options import Detail, Options, Size
from tests.images import oriented, picture

EAGER = GenerateConfig(backend="eager", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def translator(generator: Generator) -> Translator:
    return Translator(generator, EAGER)


def array(width: int = 61, height: int = 43, seed: int = 0) -> NDArray[np.uint8]:
    """Return `picture` as uint8 [H, W, 3]."""
    return np.array(picture(width, height, seed))


def test_a_model_may_be_given_by_its_file(model_file: Path, translator: Translator) -> None:
    assert np.array_equal(Translator(model_file, EAGER).translate(array()), translator.translate(array()))


def test_an_array_of_one_image_comes_back_as_one(translator: Translator) -> None:
    result = translator.translate(array())
    assert isinstance(result, np.ndarray)
    assert result.shape == (43, 61, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(result, translator(torch.from_numpy(array())[None])[0].numpy())


def test_an_array_of_many_images_comes_back_as_one(translator: Translator) -> None:
    images = np.stack([array(seed=i) for i in range(6)])
    result = translator.translate(images)
    assert result.shape == images.shape
    assert result.dtype == np.uint8
    assert all(np.array_equal(result[i], translator.translate(images[i])) for i in range(6))


@pytest.mark.parametrize("ndim", [3, 4])
def test_a_tensor_comes_back_as_a_tensor(ndim: int, translator: Translator) -> None:
    image = torch.from_numpy(array())
    result = translator.translate(image if ndim == 3 else image[None])
    assert isinstance(result, Tensor)
    assert result.dtype == torch.uint8
    assert result.ndim == ndim
    assert np.array_equal(result.reshape(43, 61, 3).numpy(), translator.translate(array()))


@pytest.mark.needs_cuda
def test_a_tensor_comes_back_on_its_device(generator: Generator) -> None:
    image = torch.from_numpy(array()).cuda()
    result = Translator(generator, GenerateConfig(backend="eager")).translate(image)
    assert result.device == image.device


def test_a_pil_image_comes_back_as_one(translator: Translator) -> None:
    result = translator.translate(picture())
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == ("RGB", (61, 43))
    assert np.array_equal(np.asarray(result), translator.translate(array()))


def test_a_list_of_different_kinds_and_sizes_comes_back_in_order(translator: Translator) -> None:
    images: list[Any] = [
        picture(40, 30, 1),
        array(64, 48, 2),
        torch.from_numpy(array(40, 30, 3)),
        np.stack([array(64, 48, 4), array(64, 48, 5)]),
        picture(64, 48, 6),
    ]
    results = translator.translate(images)
    assert [type(result) for result in results] == [Image.Image, np.ndarray, Tensor, np.ndarray, Image.Image]
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(np.asarray(result), np.asarray(translator.translate(image)))


def test_no_images_are_no_results(translator: Translator) -> None:
    assert translator.translate([]) == []
    assert translator.translate(()) == []


class RecordingTranslator(Translator):
    """Keeps the shapes of the batches that it runs."""

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator, EAGER)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        self.shapes.append(tuple(pixels_NHWC.shape))
        return super().__call__(pixels_NHWC)


def test_images_of_one_size_share_batches(generator: Generator) -> None:
    translator = RecordingTranslator(generator)
    translator.translate([array(32, 24, i) if i % 2 else array(24, 32, i) for i in range(7)], batch=3)
    assert sorted(translator.shapes) == [(1, 32, 24, 3), (3, 24, 32, 3), (3, 32, 24, 3)]


def test_photos_of_different_sizes_share_batches_at_one_working_size(generator: Generator) -> None:
    translator = RecordingTranslator(generator)
    results = translator.translate([array(80, 60), array(160, 120)], size=32, detail="plain")
    assert translator.shapes == [(2, 32, 43, 3)]
    assert [result.shape for result in results] == [(60, 80, 3), (120, 160, 3)]


MODES: dict[str, Callable[[], Image.Image]] = {
    "rgb.png": lambda: picture(),
    "gray.png": lambda: picture().convert("L"),
    "bits.png": lambda: picture().convert("1"),
    "palette.png": lambda: picture().convert("P", palette=Image.Palette.ADAPTIVE),
    "gray16.png": lambda: Image.fromarray(array()[..., 0].astype(np.uint16) * 257),
    "alpha.png": lambda: with_alpha(picture()),
    "gray-alpha.png": lambda: with_alpha(picture()).convert("LA"),
    "ink.tif": lambda: picture().convert("CMYK"),
    "lab.tif": lambda: Image.merge("LAB", picture().split()),
    "float.tif": lambda: Image.fromarray(array()[..., 0].astype(np.float32) / 255),
    "large.png": lambda: picture(150, 100),
}


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize(("size", "detail"), [("native", "none"), ("32", "none"), ("40x24", "plain"), ("32", "guided")])
def test_every_mode_has_the_result_that_convert_writes(
    size: str, detail: Detail, generator: Generator, translator: Translator, tmp_path: Path
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    for name, draw in MODES.items():
        draw().save(src / name)
    options = Options(size=Size.parse(size), detail=detail, format="png")
    assert convert(src, dst, generator, PipelineConfig(options=options, generate=EAGER)).converted == len(MODES)
    images = [Image.open(src / name) for name in MODES]
    for name, result in zip(MODES, translator.translate(images, size=size, detail=detail), strict=True):
        with Image.open((dst / name).with_suffix(".png")) as written:
            assert result.mode == written.mode, name
            assert np.array_equal(np.asarray(result), np.asarray(written)), name


def test_the_default_gives_the_images_own_size_back(translator: Translator) -> None:
    image = array(1300, 800)  # more than a megapixel, so that it is translated at 512
    result = translator.translate(image)
    assert result.shape == image.shape
    assert np.array_equal(result, translator.translate(image, size=512, detail="guided"))


@pytest.mark.parametrize("size", [60_000, "60000x1000"])
def test_an_enlargement_beyond_the_limit_of_convert_is_refused(translator: Translator, size: int | str) -> None:
    with pytest.raises(ValueError, match="from one of 30x20, which is over the limit of 50 megapixels"):
        translator.translate(np.zeros((20, 30, 3), np.uint8), size=size)


def test_size_may_be_a_number_a_text_or_a_size(translator: Translator) -> None:
    shapes = [translator.translate(array(), size=size).shape for size in (32, "32", Size.parse("32"))]
    assert shapes == [(32, 45, 3)] * 3


def test_an_opaque_alpha_channel_stays(translator: Translator) -> None:
    result = translator.translate(picture().convert("RGBA"))
    assert result.mode == "RGBA"
    assert result.getchannel("A").getextrema() == (255, 255)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(orientation: int, translator: Translator) -> None:
    with Image.open(io.BytesIO(oriented(orientation, "PNG"))) as image:
        result = translator.translate(image)
        upright = ImageOps.exif_transpose(image)
    assert result == translator.translate(upright)
    assert result.size == ((43, 61) if orientation in (6, 8) else (61, 43))
    assert not result.getexif()


def test_a_colour_profile_is_converted_to_srgb(translator: Translator) -> None:
    image = picture()
    image.info["icc_profile"] = adobe_rgb_icc()
    result = translator.translate(image)
    assert not np.array_equal(np.asarray(result), np.asarray(translator.translate(picture())))
    assert result.info["icc_profile"] == srgb_icc()


def test_arrays_with_any_strides_are_accepted_and_left_alone(translator: Translator) -> None:
    expected = translator.translate(array())
    read_only = array()
    read_only.setflags(write=False)
    mirrored = np.ascontiguousarray(array()[:, :, ::-1])[:, :, ::-1]
    for image in (read_only, np.asfortranarray(array()), mirrored):
        assert np.array_equal(translator.translate(image), expected)
        assert np.array_equal(image, array())
    planes = torch.from_numpy(array()).permute(2, 0, 1).contiguous()
    assert np.array_equal(translator.translate(planes.permute(1, 2, 0)).numpy(), expected)


FLOATS = np.zeros((8, 8, 3), np.float32)


@pytest.mark.parametrize(
    ("image", "error", "sentence"),
    [
        (FLOATS, TypeError, r"got a float32 array of shape \[8, 8, 3\]; convert it with \(x \* 255\)\.round\(\)"),
        (torch.zeros(2, 8, 8, 3), TypeError, r"got a float32 tensor .*; convert it with .*\.to\(torch\.uint8\)"),
        (np.zeros((8, 8, 3), np.uint16), TypeError, r"uint16 array .* \(x >> 8\)\.astype\(np\.uint8\)"),
        (np.zeros((8, 8, 3), np.int64), TypeError, r"int64 array .* x\.astype\(np\.uint8\)"),
        (np.zeros((3, 8, 9), np.uint8), ValueError, r"shape \[3, 8, 9\]; move the channels .* x\.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 9), np.uint8), ValueError, r"x\.transpose\(0, 2, 3, 1\)"),
        (torch.zeros(3, 8, 9, dtype=torch.uint8), ValueError, r"x\.permute\(1, 2, 0\)"),
        (np.zeros((8, 9), np.uint8), ValueError, r"gray image RGB with np\.stack"),
        (np.zeros((8, 9, 1), np.uint8), ValueError, r"gray image RGB with np\.repeat"),
        (np.zeros((8, 9, 4), np.uint8), ValueError, r"drop the alpha channel with x\[\.\.\., :3\]"),
        (np.zeros((8, 9, 5), np.uint8), ValueError, r"got a uint8 array of shape \[8, 9, 5\]$"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, r"it is empty"),
        (np.zeros(3, np.uint8), ValueError, r"shape \[3\]"),
        (Image.new("RGB", (0, 5)), ValueError, r"is empty: its size is 0x5"),
        ("photo.jpg", TypeError, r"got builtins\.str; open files with PIL\.Image\.open"),
        (Path("photo.jpg"), TypeError, r"open files with PIL\.Image\.open"),
        (None, TypeError, r"got builtins\.NoneType$"),
        ([array(), FLOATS], TypeError, r"images\[1\] must be uint8"),
        ([[array()]], TypeError, r"images\[0\] must be a PIL image, .* got builtins\.list"),
    ],
)
def test_a_wrong_type_dtype_or_layout_is_one_sentence_with_the_fix(
    image: Any, error: type[Exception], sentence: str, translator: Translator
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        translator.translate(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "large"}, "size must be a number"),
        ({"size": 8}, "sides must be 16"),
        ({"detail": "full"}, "detail must be one of none, plain, guided, got 'full'"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_a_wrong_option_is_a_value_error(options: dict[str, Any], sentence: str, translator: Translator) -> None:
    with pytest.raises(ValueError, match=sentence):
        translator.translate(array(), **options)


def test_the_fixes_that_errors_name_work(translator: Translator) -> None:
    expected = translator.translate(array())
    cases: list[tuple[Any, str]] = [
        (array().astype(np.float32) / 255, "(x * 255).round().astype(np.uint8)"),
        (array().astype(np.uint16) * 257, "(x >> 8).astype(np.uint8)"),
        (array().transpose(2, 0, 1), "x.transpose(1, 2, 0)"),
        (torch.from_numpy(array()).float() / 255, "(x * 255).round().to(torch.uint8)"),
        (torch.from_numpy(array()).permute(2, 0, 1), "x.permute(1, 2, 0)"),
    ]
    for x, fix in cases:
        with pytest.raises((TypeError, ValueError)) as caught:
            translator.translate(x)
        assert fix in str(caught.value)
        assert np.array_equal(np.asarray(translator.translate(eval(fix, {"x": x, "np": np, "torch": torch}))), expected)
