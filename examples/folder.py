"""Translate a folder of photos; a second run continues where the first one stopped.

python examples/folder.py samples winter
"""

from __future__ import annotations

import argparse

from solstice import EncodeConfig, Options, PipelineConfig, Size, convert

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default="samples")
parser.add_argument("results", nargs="?", default="winter")
parser.add_argument("--model", default="summer2winter", help="a name or a .safetensors file")
arguments = parser.parse_args()

config = PipelineConfig(
    options=Options(size=Size.parse("256"), format="jpeg"),  # short side at which the generator works
    encode=EncodeConfig(quality=95),
)
for run in ("first", "second"):
    summary = convert(arguments.photos, arguments.results, arguments.model, config)
    print(f"{run} run: {summary.converted} converted, {summary.skipped} already done, {summary.failed} failed")
for failure in summary.failures:
    print(failure["path"], failure["error"])
