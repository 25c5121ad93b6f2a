"""Translate the images of a Ray dataset, and whole archives on a Ray cluster; Ray comes with the extra `ray`.

    >>> import ray
    >>> from solstice.ray import Translate
    >>> photos = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)  # columns: bytes, path
    >>> winter = photos.map_batches(
    ...     Translate,
    ...     fn_constructor_kwargs={"model": "summer2winter", "column": "bytes"},
    ...     batch_size=64,
    ...     concurrency=4,  # actors, each with a generator of its own
    ...     num_gpus=1,
    ... )

Ray itself is imported by the caller alone, so that this module also works in `map_batches` of other engines that pass
a mapping of columns to arrays.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import PipelineConfig, num_cores
from engine.encoded import translate_files
from engine.errors import SetupError, SkipImage
from engine.images import Translator
from engine.model.weights import Generator
from engine.options import Detail, Size, default_detail

__all__ = ["Translate", "convert"]

Batch = dict[str, NDArray[Any]]
"""A batch of a Ray dataset in its format `numpy`: an array for each column, with a row for each image."""


class Translate:
    """A callable class for `ray.data.Dataset.map_batches`: adds a column with translated images to each batch.

    Every actor of the pool loads the generator once. An image that cannot be translated stays in the dataset with an
    empty result, and with the reason in a column of its own; all other columns are kept.
    """

    def __init__(
        self,
        model: str | Path | Generator,
        *,
        column: str = "image",
        output: str = "translated",
        error: str = "error",
        size: Size | str | int = "auto",
        detail: Detail | None = None,
        config: PipelineConfig | None = None,
    ) -> None:
        """Load the generator, on a GPU if Ray has given the actor one.

        Args:
            model: Name of a model, its file, or a loaded generator.
            column: Column with the images: encoded bytes of any format, as `ray.data.read_binary_files` makes them, or
                arrays, uint8 [H, W, 3], RGB, as `ray.data.read_images` does.
            output: Column for the results: encoded bytes, equal to the files that `solstice convert` writes, where the
                images are bytes; arrays of the same shapes as with `Translator.translate` where they are arrays.
            error: Column for the reasons of images that could not be translated, empty for all others.
            size: Working size, as for `Translator.translate`.
            detail: As for `Translator.translate`.
            config: Settings of the generator, and of the decoder and encoder of encoded bytes; its options' size and
                detail are replaced by `size` and `detail`.

        Raises:
            SetupError: There is no such model, or two of the columns have the same name.
        """
        if len({column, output, error}) < 3:
            raise SetupError(f"The columns {column!r}, {output!r} and {error!r} must have different names.")
        self._column, self._output, self._error = column, output, error
        parsed = size if isinstance(size, Size) else Size.parse(str(size))
        self._size, self._detail = parsed, detail or default_detail(parsed)
        self._config = _fitted(config or PipelineConfig(), self._size, self._detail)
        self._translator = Translator(model, self._config.translator)

    def __call__(self, batch: Batch) -> Batch:
        """Translate one batch; raise `SetupError` when it has no such column."""
        if self._column not in batch:
            raise SetupError(
                f"The dataset has no column {self._column!r}; name the column with the images: "
                f"{', '.join(repr(name) for name in batch)}."
            )
        images = list(batch[self._column])
        encoded = len(images) > 0 and all(isinstance(image, bytes | None) for image in images)
        results, errors = self._files(images) if encoded else self._arrays(images)
        return {**batch, self._output: results, self._error: np.array(errors, dtype=object)}

    def _files(self, images: list[bytes | None]) -> tuple[NDArray[Any], list[str]]:
        results = translate_files([image or b"" for image in images], self._translator, self._config)
        column = np.empty(len(results), dtype=object)
        column[:] = [result.data for result in results]
        return column, [result.error for result in results]

    def _arrays(self, images: list[Any]) -> tuple[NDArray[Any], list[str]]:
        results, errors = [np.empty((0, 0, 3), np.uint8) for _ in images], [""] * len(images)
        sound: list[int] = []
        for i, image in enumerate(images):
            try:
                _require_image(image)
                sound.append(i)
            except (TypeError, ValueError) as error:
                errors[i] = str(error)
        for i, result in zip(sound, self._translated([images[i] for i in sound]), strict=True):
            if isinstance(result, SkipImage):
                errors[i] = str(result)
            else:
                results[i] = result
        return _column(results), errors

    def _translated(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8] | SkipImage]:
        """Translate all in batches; where one is refused, translate each alone to find out which."""
        if not images:
            return []
        try:
            return list(self._translator.translate(images, size=self._size, detail=self._detail))
        except SkipImage as error:
            if len(images) == 1:
                return [error]
            return [result for image in images for result in self._translated([image])]


def _fitted(config: PipelineConfig, size: Size, detail: Detail) -> PipelineConfig:
    """Return the settings of one actor, with as many threads as PyTorch has: Ray sets that to the actor's cores."""
    threads = min(torch.get_num_threads(), num_cores())
    return replace(
        config,
        options=replace(config.options, size=size, detail=detail),
        decode=replace(config.decode, workers=threads),
        encode=replace(config.encode, workers=threads),
    )


def _require_image(image: object) -> None:
    """Raise `TypeError` or `ValueError` for what is not uint8 [H, W, 3]."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"is neither encoded bytes nor an array, but {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")


def _column(images: list[NDArray[np.uint8]]) -> NDArray[Any]:
    """Return one array [N, H, W, 3] where all have the same shape, else an array of arrays."""
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    column = np.empty(len(images), dtype=object)
    column[:] = images
    return column


def convert(*arguments: Any, **options: Any) -> Any:
    """Translate a whole archive on a Ray cluster; see `engine.archive.distributed.run.convert_on_ray`.

    Raises `SetupError` where Ray is not installed.
    """
    from engine.archive.distributed.cluster import require_ray

    require_ray()
    from engine.archive.distributed.run import convert_on_ray

    return convert_on_ray(*arguments, **options)
