"""Energy and GPU use during a measurement, where the machine reports them.

Energy is that of the whole processor package (RAPL, through Linux's powercap) or of the whole GPU (NVML), whatever else
runs there. RAPL counters are readable by root only on most systems, and rarely in virtual machines.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")
_SAMPLE_S = 0.1


class EnergyMeter(Protocol):
    """A counter of energy."""

    source: str
    """`rapl` or `nvml`."""

    def start(self) -> None:
        """Remember the counter."""
        ...

    def joules(self) -> float:
        """Return the energy in joules since `start`; the counter must not wrap twice in between."""
        ...


def find_meters(device: torch.device, powercap: Path = POWERCAP) -> list[EnergyMeter]:
    """Return the meters that can be read here: the processor packages, and the GPU that computes."""
    meters: list[EnergyMeter] = []
    packages = RaplMeter.packages(powercap)
    if packages:
        meters.append(RaplMeter(packages))
    handle = nvml_device(device)
    if handle is not None and _can_read_energy(handle):
        meters.append(NvmlMeter(handle))
    return meters


class RaplMeter:
    """Energy of all processor packages."""

    source = "rapl"

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._before: list[int] = []

    @staticmethod
    def packages(powercap: Path) -> list[Path]:
        """Return the readable package domains below `powercap`; their parts, such as the cores alone, are left out."""
        found = []
        for folder in sorted(powercap.glob("intel-rapl:*")):
            try:
                if (folder / "name").read_text().startswith("package"):
                    int((folder / "energy_uj").read_text())
                    found.append(folder)
            except (OSError, ValueError):
                continue
        return found

    def start(self) -> None:
        """Remember the counters."""
        self._before = [_number(folder / "energy_uj") for folder in self._packages]

    def joules(self) -> float:
        """Return the energy since `start`, with counters that wrapped once put right."""
        total_uj = 0
        for folder, before in zip(self._packages, self._before, strict=True):
            used_uj = _number(folder / "energy_uj") - before
            total_uj += used_uj if used_uj >= 0 else used_uj + _number(folder / "max_energy_range_uj")
        return total_uj / 1e6


class NvmlMeter:
    """Energy of one GPU."""

    source = "nvml"

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._before_mj = 0

    def start(self) -> None:
        """Remember the counter."""
        self._before_mj = _gpu_energy_mj(self._handle)

    def joules(self) -> float:
        """Return the energy since `start`."""
        return (_gpu_energy_mj(self._handle) - self._before_mj) / 1e3


class GpuUse:
    """Samples how busy a GPU is during a `with` block; `mean` is None where that cannot be read."""

    def __init__(self, device: torch.device) -> None:
        self._handle = nvml_device(device)
        self._samples: list[float] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuUse:
        if self._handle is not None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._sample, name="gpu-use", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def mean(self) -> float | None:
        """Share of the time, 0 to 1, in which a kernel ran."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        import pynvml

        while not self._ended.wait(_SAMPLE_S):
            self._samples.append(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100)


def nvml_device(device: torch.device) -> Any:
    """Return NVML's handle of a CUDA device; None for a CPU, or where nvidia-ml-py or the driver is missing."""
    if device.type != "cuda":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an outdated package of the same name warns on import
            import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None


def _can_read_energy(handle: Any) -> bool:
    import pynvml

    try:
        _gpu_energy_mj(handle)
    except pynvml.NVMLError:  # GPUs before Volta have no counter
        return False
    return True


def _gpu_energy_mj(handle: Any) -> int:
    import pynvml

    read: Callable[[Any], int] = pynvml.nvmlDeviceGetTotalEnergyConsumption
    return read(handle)


def _number(path: Path) -> int:
    return int(path.read_text())
