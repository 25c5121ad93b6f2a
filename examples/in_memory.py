"""Translate images that are in memory: PIL images, NumPy arrays, torch tensors.

python examples/in_memory.py samples/cliff.jpg winter.png
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from solstice import Translator

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photo", nargs="?", default="samples/cliff.jpg")
parser.add_argument("result", nargs="?", default="winter.png")
parser.add_argument("--model", default="summer2winter", help="a name or a .safetensors file")
arguments = parser.parse_args()

translator = Translator(arguments.model)

summer = Image.open(arguments.photo)
winter = translator.translate(summer)  # a PIL image becomes a PIL image
winter.save(arguments.result)
print(f"{arguments.result}: {winter.width}x{winter.height}")

video = np.stack([np.asarray(summer.convert("RGB").resize((128, 96)))] * 3)
frames = translator.translate(video)  # uint8 [N, H, W, 3] becomes uint8 [N, H, W, 3]
print("frames:", frames.shape, frames.dtype)

small, large = translator.translate([summer.resize((80, 64)), summer.resize((160, 120))], size="native")
print("a list of two sizes:", small.size, large.size)
