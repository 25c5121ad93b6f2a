#!/bin/sh
# Write deploy/requirements.lock: every package of the images but torch, with version and hashes.
#   sh deploy/lock.sh          (with the Python version of the images on the PATH)
set -eu
cd "$(dirname "$0")/.."
report=$(mktemp)
trap 'rm -f "$report"' EXIT
python -m pip install --quiet --dry-run --ignore-installed --report "$report" 'torch==2.13.0' '.[s3,gcs,azure,http,heif,tracing]'
python - "$report" > deploy/requirements.lock <<'PYTHON'
"""Print name==version --hash for each package of pip's report."""
import json
import sys

LEFT_OUT = ("torch", "solstice-engine", "triton", "nvidia-", "cuda-")
report = json.load(open(sys.argv[1]))
rows = []
for item in report["install"]:
    name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
    if name == LEFT_OUT[0] or name.startswith(LEFT_OUT[1:]):
        continue
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    rows.append(f"{name}=={version} --hash=sha256:{digest}")
python = ".".join(map(str, sys.version_info[:2]))
print(f"# Made by `sh deploy/lock.sh` with Python {python} on x86-64; torch is installed before, from its own index.")
print(*sorted(rows), sep="\n")
PYTHON
