#!/bin/sh
# Everything that is to be measured on a GPU, from a bare checkout, inside ten minutes:
#
#     sh benchmarks/gpu.sh             on a machine with a GPU and a CUDA build of torch
#     sh benchmarks/gpu.sh --rehearse  every line once on the CPU, with a tiny network
#
# PYTHON names the interpreter. What is missing beside torch is named, with the command that installs it; TensorRT is
# used when it is there. Results go to gpu-results.json and to the terminal.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

missing=$("$PYTHON" - <<'EOF'
import importlib.util
needed = {"numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors", "simplejpeg": "simplejpeg", "click": "click",
          "rich": "rich", "pytest": "pytest", "pytest_timeout": "pytest-timeout", "hypothesis": "hypothesis",
          "jinja2": "jinja2", "fsspec": "fsspec", "nvidia.dali": "nvidia-dali-cuda130"}
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(" ".join(package for name, package in needed.items() if not there(name)))
EOF
)
if [ -n "$missing" ]; then
  echo "Missing here; install with: $PYTHON -m pip install $missing" >&2
  exit 2
fi

"$PYTHON" -m engine doctor
if [ "${1:-}" = "--rehearse" ]; then
  "$PYTHON" -m pytest tests/engine/runtime/backends/test_streams.py tests/engine/runtime/test_translator_guard.py tests/engine/codec/test_dali.py \
    tests/engine/codec/test_nvimgcodec.py
else
  # Where the GPU must be there, its tests fail instead of being skipped.
  # Only the files that have some: others import what a bare checkout need not have.
  SOLSTICE_REQUIRE_CUDA=1 timeout 240 "$PYTHON" -m pytest -m needs_cuda \
    $(grep -rl --include='test_*.py' needs_cuda tests) || echo "GPU tests failed; measuring all the same" >&2
fi
exec timeout 480 "$PYTHON" -m benchmarks.gpu --out gpu-results.json "$@"
