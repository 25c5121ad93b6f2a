#!/bin/sh
# Write deploy/requirements.lock, every package of the images but torch with version and hash, and
# deploy/requirements-ray.lock, what an image with Ray has beyond that.
#   sh deploy/lock.sh          (with the Python version of the images on the PATH)
set -eu
cd "$(dirname "$0")/.."
report=$(mktemp)
trap 'rm -f "$report"' EXIT

# lock LEFT_OUT REQUIREMENT...: print the packages that pip would install, without those of the file LEFT_OUT.
lock() {
  left_out=$1
  shift
  python -m pip install --quiet --dry-run --ignore-installed --report "$report" 'torch==2.13.0' "$@"
  python - "$report" "$left_out" <<'PYTHON'
"""Print name==version --hash for each package of pip's report."""
import json
import sys
from pathlib import Path

LEFT_OUT = ("torch", "solstice-engine", "triton", "nvidia-", "cuda-")
report, known = json.load(open(sys.argv[1])), Path(sys.argv[2]).read_text().splitlines()
rows = set()
for item in report["install"]:
    name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
    if name == LEFT_OUT[0] or name.startswith(LEFT_OUT[1:]):
        continue
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    rows.add(f"{name}=={version} --hash=sha256:{digest}")
python = ".".join(map(str, sys.version_info[:2]))
print(f"# Made by `sh deploy/lock.sh` with Python {python} on x86-64; torch is installed before, from its own index.")
print(*sorted(rows.difference(known)), sep="\n")
PYTHON
}

lock /dev/null '.[s3,gcs,azure,http,heif,tracing]' > deploy/requirements.lock
# Submitting jobs to a cluster needs Ray's default packages.
lock deploy/requirements.lock '.[s3,gcs,azure,http,heif,tracing,ray]' 'ray[default]' > deploy/requirements-ray.lock
