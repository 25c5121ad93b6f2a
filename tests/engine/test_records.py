"""What travels: sizes, records that end well or badly, pictures and batches that check themselves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import Batch, DecodedImage, Failed, Origin, Record

SIDES = st.integers(1, 20_000)


def record(height: int = 4, width: int = 6, model: str = "") -> Record[DecodedImage]:
    picture = DecodedImage(torch.zeros(height, width, 3, dtype=torch.uint8), "JPEG")
    return Record(key="a.jpg", payload=picture, options=Options(model=model), origin=Origin(output="a.png"))


@pytest.mark.parametrize("text", ["256", "320x200", "native", "16", "65500x16"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert str(Size.parse(text)) == text


@pytest.mark.parametrize("text", ["", "0", "15", "65501", "256x", "x256", "-3", "256x8", "2.5", "NATIVE", "256 x 256"])
def test_a_size_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Size.parse(text)


@given(width=SIDES, height=SIDES, short=st.integers(16, 2048))
def test_a_short_side_gets_its_length_and_the_aspect_is_kept(width: int, height: int, short: int) -> None:
    new_width, new_height = Size.parse(str(short)).target(width, height)
    assert min(new_width, new_height) == short
    # The long side is rounded once, so it is off by half a pixel at most.
    assert abs(max(new_width, new_height) - max(width, height) * short / min(width, height)) <= 0.5
    assert (new_width >= new_height) == (width >= height) or new_width == new_height


@given(width=SIDES, height=SIDES)
def test_exact_and_native_sizes_do_what_they_say(width: int, height: int) -> None:
    assert Size.parse("320x200").target(width, height) == (320, 200)
    assert Size.parse("native").target(width, height) == (width, height)


def test_a_record_keeps_key_options_and_acknowledgement_when_its_payload_changes() -> None:
    changed = record().replace(b"bytes")
    assert (changed.key, changed.payload, changed.options, changed.origin) == (
        "a.jpg",
        b"bytes",
        Options(),
        Origin(output="a.png"),
    )


def test_a_failure_keeps_the_acknowledgement_and_one_line_of_the_reason() -> None:
    failed = record().failed("decode", ValueError("first line\nsecond line"))
    assert (failed.key, failed.stage, failed.reason, failed.origin) == (
        "a.jpg",
        "decode",
        "first line",
        Origin(output="a.png"),
    )
    assert record().failed("decode", " ").reason == "unknown error"


def test_an_attempt_turns_a_bad_image_into_a_failure_and_lets_defects_through() -> None:
    def skips(_: Record[DecodedImage]) -> int:
        raise SkipImage("torn")

    def breaks(_: Record[DecodedImage]) -> int:
        raise ZeroDivisionError

    good = record().attempt("decode", lambda r: r.payload.width)
    assert isinstance(good, Record)
    assert good.payload == 6
    bad = record().attempt("decode", skips)
    assert isinstance(bad, Failed)
    assert (bad.stage, bad.reason) == ("decode", "torn")
    with pytest.raises(ZeroDivisionError):
        record().attempt("decode", breaks)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 4), (0, 6, 3), (1, 4, 6, 3)])
def test_a_picture_is_height_width_and_three_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DecodedImage(torch.zeros(shape, dtype=torch.uint8), "JPEG")


def test_a_picture_shows_its_size_and_not_its_pixels() -> None:
    assert repr(record().payload) == "DecodedImage(6x4, JPEG)"


def test_a_batch_holds_one_shape_for_one_model() -> None:
    assert Batch((record(model="w"), record(model="w"))).model == "w"
    for other in (record(height=8, model="w"), record(model="s")):
        with pytest.raises(ValueError, match="one shape"):
            Batch((record(model="w"), other))
    with pytest.raises(ValueError, match="one shape"):
        Batch(())


def test_a_batch_is_put_together_where_its_first_picture_on_a_device_is() -> None:
    pictures = [DecodedImage(torch.full((4, 6, 3), i, dtype=torch.uint8), "JPEG") for i in range(3)]
    records = [record().replace(picture) for picture in pictures]
    together = Batch(tuple(records)).stacked()
    assert together.shape == (3, 4, 6, 3)
    assert [int(one_HWC.unique()) for one_HWC in together] == [0, 1, 2]
    # A batch of one is not copied; pixels that lie apart in memory are.
    assert torch.equal(Batch((records[2],)).stacked(), together[2:])
    apart = torch.arange(4 * 12 * 3, dtype=torch.uint8).reshape(4, 12, 3)[:, ::2]
    for others in ((), (records[0],)):
        stacked = Batch((record().replace(DecodedImage(apart, "JPEG")), *others)).stacked()
        assert torch.equal(stacked[0], apart)
        assert stacked.is_contiguous()
    # The device that every machine has beside its CPU; what is there has a shape and no values.
    elsewhere = record().replace(DecodedImage(torch.zeros(4, 6, 3, dtype=torch.uint8, device="meta"), "JPEG"))
    mixed = Batch((records[0], elsewhere, records[1])).stacked()
    assert (mixed.device.type, mixed.shape) == ("meta", together.shape)


@pytest.mark.parametrize(
    ("photo", "working"),
    [
        ((1000, 1000), (1000, 1000)),
        ((512, 340), (512, 340)),
        ((4000, 3000), (683, 512)),
        ((3000, 4000), (512, 683)),
        ((100, 20_000), (100, 20_000)),
    ],
)
def test_auto_is_native_up_to_a_megapixel_and_never_enlarges(photo: tuple[int, int], working: tuple[int, int]) -> None:
    assert Size.parse("auto").target(*photo) == working


def test_a_black_output_of_an_image_that_is_not_dark_fails_it() -> None:
    """Pixels of an output that is not finite are 0."""
    bright, dark = (DecodedImage(torch.full((4, 4, 3), level, dtype=torch.uint8), "PNG") for level in (60, 3))
    black = torch.zeros((4, 4, 3), dtype=torch.uint8)
    with pytest.raises(SkipImage, match="output is black"):
        bright.translated(black)
    assert dark.translated(black).pixels_HWC is black


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_a_translation_is_joined_with_its_image_without_waking_threads_of_pytorch() -> None:
    image = DecodedImage(torch.full((256, 256, 3), 60, dtype=torch.uint8), "PNG")
    pixels_HWC = torch.ones_like(image.pixels_HWC)

    def started_by(work: Callable[[], object]) -> int:
        """Count the threads that OpenMP starts in a thread that had none."""
        before = len(list(Path("/proc/self/task").iterdir()))
        work()
        return len(list(Path("/proc/self/task").iterdir())) - before

    def both() -> tuple[int, int]:
        torch.set_num_threads(2)
        joined = started_by(lambda: image.translated(pixels_HWC))
        return joined, started_by(lambda: image.pixels_HWC.any())

    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        joined, by_torch = pool.submit(both).result()
        pool.submit(torch.set_num_threads, num_threads).result()
    torch.set_num_threads(num_threads)
    assert (joined, by_torch) == (0, 1)
