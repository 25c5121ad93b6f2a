"""Translate photos without Solstice's pipeline, in 15 lines: `simple_script.py MODEL IN OUT` (`benchmarks.camera`)."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import load_generator

Path(sys.argv[3]).mkdir(exist_ok=True)
net = load_generator(sys.argv[1]).module
for path in sorted(Path(sys.argv[2]).iterdir()):
    photo = Image.open(path).convert("RGB")
    small = photo.resize([round(side * 512 / min(photo.size) / 4) * 4 for side in photo.size], Image.Resampling.BICUBIC)
    with torch.inference_mode():
        result = net(torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 127.5 - 1)[0].permute(1, 2, 0)
    pixels = ((result + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(pixels).resize(photo.size, Image.Resampling.BICUBIC).save(f"{sys.argv[3]}/{path.name}", quality=92)
