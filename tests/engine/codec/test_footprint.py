"""The estimate of an image's memory is an upper bound of what its translation uses."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from engine.codec.footprint import footprint_bytes
from engine.codec.header import inspect
from engine.options import Options, Size
from tests import ROOT

SIDE = 3000

SCRIPT = """
import io, json, sys
from PIL import Image
from engine.codec.decode import Decoder
from engine.codec.detail import restore
from engine.codec.encode import Encoder
from engine.codec.footprint import footprint_bytes
from engine.codec.header import inspect
from engine.config import DecodeConfig, EncodeConfig
from engine.options import Options, Size
from engine.records import Record
size, detail = sys.argv[1:]
data = sys.stdin.buffer.read()
options = Options(size=Size.parse(size), detail=detail, format="jpeg")
image = inspect(data, 10**9)
from engine.system.allocator import keep_freed_memory
assert keep_freed_memory(), "as every command does"
def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
def translate(image):
    decoded = Decoder(DecodeConfig())([Record(key="", payload=image, options=options)])[0]
    translated = decoded.replace(decoded.payload.translated(decoded.payload.pixels_HWC.clone()))
    Encoder(EncodeConfig())(restore([translated]))
buffer = io.BytesIO()
Image.new(image.mode, (600, 600)).save(buffer, image.format)
translate(inspect(buffer.getvalue(), 10**9))  # loads libraries
before = memory("VmRSS")
translate(image)
print(json.dumps([footprint_bytes(image, options), memory("VmHWM") - before]))
"""


def encoded(mode: str, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(buffer, format, **options)
    return buffer.getvalue()


CASES = {
    "jpeg, restored": (encoded("RGB", "JPEG"), "512", "guided"),
    "transparent": (encoded("RGBA", "PNG"), "256", "none"),
    "16 bits": (encoded("I;16", "PNG"), "native", "none"),
}


def test_the_estimate_covers_the_peak_of_a_process() -> None:
    """Each image has its own process, since a peak counts from the start of the process."""
    peaks = {}
    command = [sys.executable, "-c", SCRIPT]
    running = {
        name: subprocess.Popen([*command, size, detail], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name, (_, size, detail) in CASES.items()
    }
    for name, process in running.items():
        output, _ = process.communicate(CASES[name][0])
        assert process.returncode == 0
        estimate, peak = json.loads(output)
        peaks[name] = peak / estimate
    assert max(peaks.values()) <= 1.05, peaks
    assert min(peaks.values()) >= 0.15, peaks


@pytest.mark.parametrize("detail", ["none", "guided"])
def test_the_estimate_depends_on_the_options(detail: str) -> None:
    image = inspect(encoded("RGB", "PNG"), 10**9)
    sizes = [Options(size=Size.parse(size), detail=detail) for size in ("256", "4000", "8000x8000")]  # type: ignore[arg-type]
    estimates = [footprint_bytes(image, options) for options in sizes]
    assert estimates == sorted(set(estimates))
