#!/bin/sh
# Measure a GPU from a bare checkout, within ten minutes:
#
#     sh benchmarks/gpu.sh             on a machine with a GPU and a CUDA build of torch
#     sh benchmarks/gpu.sh --rehearse  every line once on the CPU, with a tiny network
#
# PYTHON names the interpreter. A missing requirement is named with the command that installs it; what is optional (DALI,
# nvImageCodec, TensorRT, kafka-python, simplejpeg) is used where it is installed. Results are written to gpu-results.json.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

"$PYTHON" - <<'PROGRAM'
import importlib.util
import sys

REQUIRED = {"numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors", "click": "click", "rich": "rich", "jinja2": "jinja2", "fsspec": "fsspec"}
OPTIONAL = {"nvidia.dali": "DALI: JPEGs are decoded on the CPU", "nvidia.nvimgcodec": "nvImageCodec: no encoder on the GPU",
            "torch_tensorrt": "Torch-TensorRT: backends inductor and eager only", "kafka": "kafka-python: no streams",
            "simplejpeg": "simplejpeg: JPEGs go through Pillow, slower",
            "pytest": "pytest: the GPU tests are not run"}


def is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


for name, consequence in OPTIONAL.items():
    if not is_installed(name):
        print(f"Not installed: {consequence}.", file=sys.stderr)
missing = [package for name, package in REQUIRED.items() if not is_installed(name)]
if missing:
    sys.exit(f"Missing here; install with: {sys.executable} -m pip install {' '.join(missing)}")
PROGRAM

# A toolkit for the compiled backend, and its stub libraries for linking.
for home in "${CUDA_HOME:-}" /usr/local/cuda /usr/local/cuda-*; do
  if [ -f "$home/include/cuda.h" ]; then
    export CUDA_HOME="$home" LIBRARY_PATH="$home/lib64/stubs:${LIBRARY_PATH:-}"
    break
  fi
done

"$PYTHON" -m engine doctor
if "$PYTHON" -c "import pytest" 2>/dev/null; then
  if [ "${1:-}" = "--rehearse" ]; then
    "$PYTHON" -m pytest -q -p no:cacheprovider tests/engine/runtime/backends/test_streams.py \
      tests/engine/runtime/test_recovery.py || echo "Tests failed; measuring all the same" >&2
  else
    # Required to find a GPU, its tests fail instead of being skipped. Other files may import what is not installed:
    # their collection errors do not stop the rest.
    SOLSTICE_REQUIRE_CUDA=1 timeout 240 "$PYTHON" -m pytest -q -p no:cacheprovider -m needs_cuda \
      --continue-on-collection-errors $(grep -rl --include='test_*.py' needs_cuda tests) ||
      echo "GPU tests failed; measuring all the same" >&2
  fi
fi
limit_s=480
[ "${1:-}" = "--rehearse" ] && limit_s=3600 # on whatever CPU there is, which may be busy
exec timeout "$limit_s" "$PYTHON" -m benchmarks.gpu --out gpu-results.json "$@"
