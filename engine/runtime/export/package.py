"""Copy a generator's compiled package out of the cache, with its card inside."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from engine.config import GenerateConfig
from engine.errors import SetupError
from engine.model.card import CARD_KEY
from engine.model.weights import Generator
from engine.runtime.backends.inductor import WIDE, InductorBackend, package_key, stored_key
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.parity import ParityResult, check
from engine.system.device import choose_device
from engine.system.files import atomic_file

CARD_FILE = f"{CARD_KEY}.json"
"""Name of the card among the extra files of the package."""


def export_package(generator: Generator, path: Path, config: GenerateConfig, *, dtype: str = "fp32") -> ParityResult:
    """Write the package that TorchInductor compiles for this machine to `path` atomically; return its parity.

    It is compiled if the cache does not have it. Raises `SetupError` if it cannot be, or computes something else than
    the fp32 module.
    """
    packages = PackageCache(config.cache or default_cache())
    device = choose_device(config.device)
    backend = InductorBackend(generator, dtype, device, packages, config.sides)
    parity = check(generator, backend, packages)
    if not parity.passed:
        raise SetupError(f"{path} is not written: the package's output differs from the fp32 module's ({parity}).")
    package = packages.get(stored_key(package_key(generator, dtype, device, WIDE), packages))
    if package is None:
        raise SetupError(f"The package in {packages} was removed while it was read; try again.")
    with atomic_file(path) as file:
        with package.open("rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
        with zipfile.ZipFile(Path(f"/proc/self/fd/{file.fileno()}"), "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{root}/extra/{CARD_FILE}", generator.card.to_json())
    return parity
