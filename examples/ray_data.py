"""Translate the images of a Ray dataset on all nodes of a cluster; without one, on this machine.

python examples/ray_data.py samples winter --actors 1
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise

import ray

from solstice.ray import Translate

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default="samples", help="a folder or a URL such as s3://bucket/photos")
parser.add_argument("results", nargs="?", default="winter")
parser.add_argument("--model", default="summer2winter", help="a name or a .safetensors file")
parser.add_argument("--actors", type=int, default=1)
parser.add_argument("--gpus", type=float, default=0, help="GPUs of each actor")
arguments = parser.parse_args()

if not ray.is_initialized():
    ray.init()
source = arguments.photos if "://" in arguments.photos else str(Path(arguments.photos).resolve())  # nodes share it
photos = ray.data.read_binary_files(source, include_paths=True, file_extensions=["jpg"])
winter = photos.map_batches(
    Translate,
    fn_constructor_kwargs={"model": arguments.model, "column": "bytes", "size": 256},
    batch_size=16,
    concurrency=arguments.actors,
    num_gpus=arguments.gpus,
)

folder = Path(arguments.results)
folder.mkdir(exist_ok=True)
for row in winter.iter_rows():
    name = Path(row["path"]).name
    if row["error"]:
        print(f"{name}: {row['error']}")
    else:
        (folder / name).write_bytes(row["translated"])
print(len(list(folder.iterdir())), "photos translated")
