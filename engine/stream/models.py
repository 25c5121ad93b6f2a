"""A cache of translators, and the retry of a batch that fails in the backend."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from engine.config import GenerateConfig
from engine.errors import SetupError, SkipImage
from engine.model.weights import load_generator
from engine.observe.metrics import Metrics, NoMetrics
from engine.pipeline import Translate
from engine.runtime.translator import BatchTranslator
from engine.system.retry import retried

log = logging.getLogger(__name__)


class ModelCache(Mapping[str, Translate]):
    """Translators by model name; the least recently used one is dropped when room is needed.

    Thread-safe; while one thread loads a model, the others wait.
    """

    def __init__(
        self, files: Mapping[str, Path], config: GenerateConfig, room: int = 2, metrics: Metrics | None = None
    ) -> None:
        """Hash all files and load the first; raises `SetupError` for one that is missing or damaged."""
        self._files = files
        self._config = config
        self._room = room
        self._metrics = metrics or NoMetrics()
        self._lock = threading.Lock()
        self._resident: OrderedDict[str, Translate] = OrderedDict()
        self.sha256 = {name: _hash(path) for name, path in files.items()}
        """SHA-256 of each model's file, in hexadecimal."""
        self[next(iter(files))]

    def __getitem__(self, name: str) -> Translate:
        with self._lock:
            if name not in self._resident:
                self._load(name)
            self._resident.move_to_end(name)
            return self._resident[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _load(self, name: str) -> None:
        generator = load_generator(self._files[name])
        while len(self._resident) >= self._room:
            gone, _ = self._resident.popitem(last=False)
            log.info("Dropping the model %s from memory for %s", gone, name)
        translator = BatchTranslator(generator, self._config)
        log.info("Model %s: %s", name, translator.reason)
        self._resident[name] = RetryOnce(translator, self._metrics)
        self._metrics.gauge("models_resident", len(self._resident))


class RetryOnce:
    """Translates, and tries a batch that fails in the backend once more before its images are refused.

    An image that breaks the backend would otherwise break every worker that it is delivered to.
    """

    def __init__(self, translate: Translate, metrics: Metrics) -> None:
        self._translate = translate
        self._metrics = metrics

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] to the same; raises `SkipImage` when that fails twice."""

        def again(error: Exception) -> None:
            self._metrics.count("retries_total", 1.0, "generate")
            log.warning("Translating a batch of %s failed, trying again: %s", tuple(pixels_NHWC.shape), error)

        try:
            return retried(lambda: self._translate(pixels_NHWC), RuntimeError, again, attempts=2)
        except RuntimeError as error:
            raise SkipImage(f"cannot be translated: {error}") from error


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SetupError(f"The model file {path} cannot be read: {error.strerror}.") from error
