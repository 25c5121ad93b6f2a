from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.bench.energy import GpuUse, RaplMeter, find_meters, nvml_device


def domain(powercap: Path, number: str, name: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    """Write a folder as Linux's powercap shows it."""
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_the_energy_of_all_packages_is_added_up_without_their_parts(tmp_path: Path) -> None:
    packages = [domain(tmp_path, str(i), f"package-{i}", 1000) for i in range(2)]
    core = domain(tmp_path, "0:0", "core", 1000)
    (meter,) = find_meters(torch.device("cpu"), tmp_path)

    meter.start()
    for folder in (*packages, core):
        (folder / "energy_uj").write_text("501000\n")

    assert meter.source == "rapl"
    assert meter.joules() == pytest.approx(1.0)


def test_a_counter_that_wrapped_is_put_right(tmp_path: Path) -> None:
    folder = domain(tmp_path, "0", "package-0", 900_000)
    meter = RaplMeter(RaplMeter.packages(tmp_path))

    meter.start()
    (folder / "energy_uj").write_text("100000\n")

    assert meter.joules() == pytest.approx(0.2)


def test_a_machine_without_readable_counters_has_no_meter(tmp_path: Path) -> None:
    domain(tmp_path, "0", "package-0", 0).joinpath("energy_uj").write_text("not a number")

    assert find_meters(torch.device("cpu"), tmp_path) == []
    assert find_meters(torch.device("cpu"), tmp_path / "missing") == []


def test_the_use_of_a_gpu_is_unknown_on_a_cpu() -> None:
    with GpuUse(torch.device("cpu")) as use:
        pass

    assert use.mean is None
    assert nvml_device(torch.device("cpu")) is None


@pytest.mark.needs_cuda
def test_a_gpu_reports_its_use_and_energy() -> None:
    device = torch.device("cuda", 0)
    meters = [meter for meter in find_meters(device) if meter.source == "nvml"]
    matrix = torch.randn(4096, 4096, device=device)

    with GpuUse(device) as use:
        for meter in meters:
            meter.start()
        for _ in range(200):
            matrix @ matrix
        torch.cuda.synchronize(device)

    if nvml_device(device) is not None:
        assert use.mean is None or 0 <= use.mean <= 1
        assert [meter.joules() > 0 for meter in meters] == [True]
