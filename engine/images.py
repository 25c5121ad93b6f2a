"""Translate images in memory: PIL images, NumPy arrays and torch tensors.

>>> translator = Translator(load_generator("summer2winter"))
>>> translator.translate(image)      # a PIL image → a PIL image of the same size
>>> translator.translate(array)      # uint8 [H, W, 3] or [N, H, W, 3] → the same shape
>>> translator.translate([a, b, c])  # of any sizes → a list in the same order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from engine.batch import Batcher
from engine.codec.colour import from_image
from engine.codec.detail import restore
from engine.codec.geometry import resize_with_alpha, upright
from engine.config import CPU_BATCH, CPU_BATCH_PIXELS, GPU_BATCH, BatchConfig, DecodeConfig, GenerateConfig
from engine.model.weights import Generator, load_generator
from engine.options import Detail, Options, Size, default_detail
from engine.records import Batch, DecodedImage, Record
from engine.runtime.translator import BatchTranslator

AnyImage = Image.Image | NDArray[np.uint8] | Tensor
ImageT = TypeVar("ImageT", Image.Image, NDArray[np.uint8], Tensor)

MAX_OUTPUT_PIXELS = DecodeConfig.max_output_pixels
"""Pixels that an image may be enlarged to, as in `solstice convert`."""
_EXIF_ORIENTATION = 0x0112


class Translator(BatchTranslator):
    """A generator on its backend, for images in memory.

    `translate` takes images of any kind and size; calling the translator takes one batch, uint8 [N, H, W, 3].
    """

    def __init__(self, model: str | Path | Generator, config: GenerateConfig | None = None) -> None:
        """Load the model if it is given by name or file, choose a backend, and compile or load what it needs.

        Raises `SetupError` if there is no such model, backend or device on this machine.
        """
        super().__init__(load_generator(model) if isinstance(model, str | Path) else model, config)

    @overload
    def translate(
        self, images: ImageT, *, size: Size | str | int = ..., detail: Detail | None = ..., batch: int | None = ...
    ) -> ImageT: ...

    @overload
    def translate(
        self,
        images: Sequence[ImageT],
        *,
        size: Size | str | int = ...,
        detail: Detail | None = ...,
        batch: int | None = ...,
    ) -> list[ImageT]: ...

    def translate(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        size: Size | str | int = "auto",
        detail: Detail | None = None,
        batch: int | None = None,
    ) -> Any:
        """Translate one image or a list of images, and return the same kind.

        Images of a list may differ in kind and size; those of the same working size are translated in batches.

        Args:
            images: A PIL image of any mode; a NumPy array or torch tensor, uint8 [H, W, 3] or [N, H, W, 3], RGB; or a
                list of these.
            size: Working size, as `solstice convert --size`: "auto" is the image's own size up to a megapixel and a
                short side of 512 above; 256 is a short side, "320x200" an exact size, "native" the image's own size.
            detail: As `solstice convert --detail`: "guided" and "plain" enlarge the result to the image's own size,
                "none" leaves it at working size. None is "guided" for size "auto" and "none" otherwise.
            batch: Maximum images per batch; None is 4 on a CPU, 32 on a GPU.

        Returns:
            PIL images are RGB, upright (EXIF orientation applied) and sRGB; those with transparency are RGBA, with
            their alpha unchanged but for its size. 16-bit and floating-point images are reduced to 8 bits. Metadata is
            not carried over; `engine.convert` does that. Arrays and tensors are uint8 with the input's number of
            dimensions, tensors on the input's device.

        Raises:
            TypeError: An image is of another type, or its dtype is not uint8.
            ValueError: The shape or layout, `size`, `detail` or `batch` is wrong, or `size` enlarges an image to more
                than 50 megapixels.
            SkipImage: The memory budget is too small for an image, even in bands.
            SetupError: The process was forked after the translator was made.
        """
        options = _options(size, detail)
        if isinstance(images, list | tuple):
            adapters = [_adapter(image, f"images[{i}]") for i, image in enumerate(images)]
            return self._results(adapters, options, batch)
        return self._results([_adapter(images, "the image")], options, batch)[0]

    def _results(self, adapters: Sequence[_ImageAdapter], options: Options, batch: int | None) -> list[AnyImage]:
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        on_gpu = self._device.type == "cuda"
        full_pixels = None if batch or on_gpu else CPU_BATCH_PIXELS
        config = BatchConfig(size=batch or (GPU_BATCH if on_gpu else CPU_BATCH), full_pixels=full_pixels)
        translated: dict[str, DecodedImage] = {}
        for item in Batcher(config)([record] for record in _records(adapters, options)):
            assert isinstance(item, Batch), "there are neither failures nor ticks"
            translated.update(self._translated(item))
        in_order = (translated.pop(str(i)) for i in count())
        return [adapter.result(list(islice(in_order, adapter.num_images))) for adapter in adapters]

    def _translated(self, batch: Batch) -> Iterator[tuple[str, DecodedImage]]:
        pixels_NHWC = self(batch.stacked()).cpu()
        for record, pixels_HWC in zip(batch.records, pixels_NHWC, strict=True):
            [restored] = restore([record.replace(record.payload.translated(pixels_HWC))])
            assert isinstance(restored, Record)
            yield restored.key, restored.payload


def _options(size: Size | str | int, detail: Detail | None) -> Options:
    parsed = size if isinstance(size, Size) else Size.parse(str(size))
    if detail is not None and detail not in get_args(Detail):
        raise ValueError(f"detail must be one of {', '.join(get_args(Detail))}, got {detail!r}")
    return Options(size=parsed, detail=detail or default_detail(parsed))


def _records(adapters: Sequence[_ImageAdapter], options: Options) -> Iterator[Record[DecodedImage]]:
    """Yield a record for each image, at its working size; made one by one, when the batcher asks for it."""
    keys = count()
    for adapter in adapters:
        for pixels_HWC, alpha_HW in adapter.images():
            picture = _at_working_size(pixels_HWC, alpha_HW, options)
            yield Record(key=str(next(keys)), payload=picture, options=options)


def _at_working_size(pixels_HWC: Tensor, alpha_HW: Tensor | None, options: Options) -> DecodedImage:
    height, width = pixels_HWC.shape[:2]
    working = options.size.target(width, height)
    if working[0] * working[1] > max(width * height, MAX_OUTPUT_PIXELS):
        raise ValueError(
            f"size makes an image of {working[0]}x{working[1]} from one of {width}x{height}, which is over the limit "
            f"of {MAX_OUTPUT_PIXELS / 1e6:,.0f} megapixels; choose a smaller size"
        )
    working_HWC, working_alpha_HW = resize_with_alpha(pixels_HWC, alpha_HW, *working)
    if options.detail != "none" and working != (width, height):
        return DecodedImage(working_HWC, format="", full_HWC=pixels_HWC, alpha_HW=alpha_HW)
    return DecodedImage(working_HWC, format="", alpha_HW=working_alpha_HW)


class _ImageAdapter(Protocol):
    """One argument: the images in it, and how results become the same kind."""

    num_images: int

    def images(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield pixels, uint8 [H, W, 3] on the CPU, and alpha, uint8 [H, W] or None where all is opaque."""
        ...

    def result(self, pictures: list[DecodedImage]) -> AnyImage:
        """Return the translated images as the argument's kind."""
        ...


def _adapter(image: object, name: str) -> _ImageAdapter:
    if isinstance(image, Image.Image):
        return _PilAdapter(image, name)
    if isinstance(image, np.ndarray):
        return _ArrayAdapter(image, name)
    if isinstance(image, Tensor):
        return _TensorAdapter(image, name)
    hint = "; open files with PIL.Image.open, or translate them with engine.convert" if _is_path(image) else ""
    raise TypeError(
        f"{name} must be a PIL image, a NumPy array or a torch tensor, got {type(image).__module__}."
        f"{type(image).__qualname__}{hint}"
    )


class _PilAdapter:
    num_images = 1

    def __init__(self, image: Image.Image, name: str) -> None:
        if 0 in image.size:
            raise ValueError(f"{name} is empty: its size is {image.width}x{image.height}")
        self._image = image

    def images(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        self._image.load()
        orientation = self._image.getexif().get(_EXIF_ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        colours = from_image(self._image, self._image.info.get("icc_profile"))
        pixels_HWC = upright(torch.from_numpy(colours.pixels), orientation).contiguous()
        alpha_HW = None if colours.alpha is None else upright(torch.from_numpy(colours.alpha), orientation).contiguous()
        self._icc = colours.icc
        yield pixels_HWC, alpha_HW

    def result(self, pictures: list[DecodedImage]) -> Image.Image:
        [picture] = pictures
        image = Image.fromarray(picture.pixels_HWC.numpy())
        if picture.alpha_HW is not None:
            image.putalpha(Image.fromarray(picture.alpha_HW.numpy()))
        elif self._image.has_transparency_data:
            image.putalpha(255)
        if self._icc is not None:
            image.info["icc_profile"] = self._icc
        return image


class _TensorAdapter:
    def __init__(self, image: Tensor, name: str) -> None:
        _check(tuple(image.shape), str(image.dtype).removeprefix("torch."), name, "tensor", _TORCH_FIXES)
        self._image = image
        self._images_NHWC = image if image.ndim == 4 else image[None]
        self.num_images = len(self._images_NHWC)

    def images(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for pixels_HWC in self._images_NHWC:
            yield pixels_HWC.cpu().contiguous(), None

    def result(self, pictures: list[DecodedImage]) -> Tensor:
        pixels_NHWC = torch.stack([picture.pixels_HWC for picture in pictures]).to(self._image.device)
        return pixels_NHWC if self._image.ndim == 4 else pixels_NHWC[0]


class _ArrayAdapter:
    def __init__(self, image: NDArray[Any], name: str) -> None:
        _check(image.shape, str(image.dtype), name, "array", _NUMPY_FIXES)
        self._image = image
        self._images_NHWC = image if image.ndim == 4 else image[None]
        self.num_images = len(self._images_NHWC)

    def images(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for pixels_HWC in self._images_NHWC:
            # A copy where the array is read-only or its strides are not those of [H, W, 3].
            yield torch.from_numpy(np.require(pixels_HWC, requirements=["C", "W"])), None

    def result(self, pictures: list[DecodedImage]) -> NDArray[np.uint8]:
        pixels_NHWC = np.stack([picture.pixels_HWC.numpy() for picture in pictures])
        return pixels_NHWC if self._image.ndim == 4 else pixels_NHWC[0]


_NUMPY_FIXES = {
    "float": "(x * 255).round().astype(np.uint8), if its range is 0 to 1",
    "uint16": "(x >> 8).astype(np.uint8)",
    "dtype": "x.astype(np.uint8), if its range is 0 to 255",
    "CHW": "x.transpose(1, 2, 0)",
    "NCHW": "x.transpose(0, 2, 3, 1)",
    "HW": "np.stack([x, x, x], axis=-1)",
    "gray": "np.repeat(x, 3, axis=-1)",
}
_TORCH_FIXES = {
    "float": "(x * 255).round().to(torch.uint8), if its range is 0 to 1",
    "uint16": "(x.int() >> 8).to(torch.uint8)",
    "dtype": "x.to(torch.uint8), if its range is 0 to 255",
    "CHW": "x.permute(1, 2, 0)",
    "NCHW": "x.permute(0, 2, 3, 1)",
    "HW": "torch.stack([x, x, x], dim=-1)",
    "gray": "x.repeat_interleave(3, dim=-1)",
}


def _check(shape: tuple[int, ...], dtype: str, name: str, kind: str, fixes: dict[str, str]) -> None:
    """Raise `TypeError` for a dtype and `ValueError` for a shape that cannot be translated, with the fix."""
    got = f"{name} must be uint8 [H, W, 3] or [N, H, W, 3], got a {dtype} {kind} of shape {list(shape)}"
    if dtype != "uint8":
        fix = fixes["float"] if "float" in dtype else fixes.get(dtype, fixes["dtype"])
        raise TypeError(f"{got}; convert it with {fix}")
    if len(shape) in (3, 4) and shape[-1] == 3 and 0 not in shape:
        return
    raise ValueError(f"{got}{_shape_hint(shape, fixes)}")


def _shape_hint(shape: tuple[int, ...], fixes: dict[str, str]) -> str:
    if 0 in shape:
        return "; it is empty"
    if len(shape) == 2:
        return f"; make a gray image RGB with {fixes['HW']}"
    if len(shape) not in (3, 4):
        return ""
    if shape[-3] == 3:
        return f"; move the channels to the end with {fixes['CHW' if len(shape) == 3 else 'NCHW']}"
    if shape[-1] == 4:
        return "; drop the alpha channel with x[..., :3], or pass a PIL image, which keeps its alpha"
    if shape[-1] == 1:
        return f"; make a gray image RGB with {fixes['gray']}"
    return ""


def _is_path(image: object) -> bool:
    return isinstance(image, str | bytes) or hasattr(image, "__fspath__")
