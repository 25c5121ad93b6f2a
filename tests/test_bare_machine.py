"""Without the packages that a bare GPU machine lacks, everything but what needs them works.

`make bare` tries the same in an environment of its own, with the PyTorch of such a machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from tests.images import encoded, photo, picture

ABSENT = (
    *("nvidia.dali", "nvidia.nvimgcodec", "tensorrt", "torch_tensorrt", "openvino", "simplejpeg", "imagecodecs"),
    *("tifffile", "rawpy", "pillow_heif", "pillow_jxl", "kafka", "crc32c", "lz4", "snappy", "zstandard"),
    *("fastjsonschema", "matplotlib", "pynvml"),
)
PROGRAM = """
import json, sys
absent, source, packed, out = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(absent))

import benchmarks.gpu, trainer.cli  # importing them needs none of it
from click.testing import CliRunner
from engine.bench.photos import find_scenes
from engine.cli.convert import convert
from engine.cli.doctor import doctor

def run(command, *arguments):
    done = CliRunner().invoke(command, arguments)
    return [done.exit_code, done.output, str(done.exception)]

options = ("--model", "summer2winter", "--size", "16", "--device", "cpu", "--backend", "eager")
print(json.dumps({
    "photos": run(convert, source, out + "/photos", *options),
    "zstd": run(convert, packed, out + "/packed", *options),
    "doctor": run(doctor),
    "scene": len(find_scenes().jpeg(0, 64, 48)),
}))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Run commands in one process that cannot import `ABSENT`."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "src").mkdir()
    (folder / "src" / "a.jpg").write_bytes(photo(60, 40))
    (folder / "src" / "progressive.jpg").write_bytes(encoded(picture(), progressive=True))
    for name, format in (("a.png", "PNG"), ("a.webp", "WEBP"), ("a.tif", "TIFF")):
        (folder / "src" / name).write_bytes(encoded(picture(), format))
    with tarfile.open(folder / "t.tar", "w") as archive:
        archive.add(folder / "src" / "a.jpg", "a.jpg")
    packed = folder / "t.tar.zst"
    packed.write_bytes(zstandard.compress((folder / "t.tar").read_bytes()))
    arguments = json.dumps([ABSENT, str(folder / "src"), str(packed), str(folder)])
    command = [sys.executable, "-c", PROGRAM, arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_photos_are_converted(bare: dict[str, list[object]]) -> None:
    exit_code, output, _ = bare["photos"]
    assert exit_code == 0, output
    assert "5 converted" in str(output)


def test_a_zstd_archive_is_refused_with_what_to_install(bare: dict[str, list[object]]) -> None:
    _, _, error = bare["zstd"]
    assert "pip install zstandard" in str(error)


def test_doctor_names_what_is_missing(bare: dict[str, list[object]]) -> None:
    exit_code, output, _ = bare["doctor"]
    assert exit_code == 0
    assert "Install simplejpeg" in str(output)
    for format in ("HEIF", "JXL", "RAW", "16 bits per channel"):
        assert f"{format} needs" in str(output)


def test_photos_to_measure_with_need_no_simplejpeg(bare: dict[str, list[object]]) -> None:
    assert bare["scene"]
