"""Read the weights in an ONNX file by name, as if it were a checkpoint.

Converters from ONNX to PyTorch make a module of the file's own graph, which no card describes. The exporters of PyTorch
keep the names of parameters, which is all that an import needs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import SetupError
from engine.system.extras import install_hint

SUFFIX = ".onnx"

_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "filt")

Tensors = dict[str, Tensor]


def read_named_weights(path: Path) -> Tensors:
    """Return the initializers of an ONNX file by name, as tensors.

    Raises `SetupError` if a package is missing, or the file cannot be read or keeps its weights in other files.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise SetupError(f"Reading ONNX files needs the package {name}: {install_hint('onnx')}.")
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise SetupError(f"{path} cannot be read as an ONNX file ({type(error).__name__}).") from error
    tensors: Tensors = {}
    for initializer in model.graph.initializer:
        if initializer.data_location == onnx.TensorProto.EXTERNAL:
            raise SetupError(f"{path} keeps its weights in other files; save it as one file with onnx.save first.")
        if initializer.name.rpartition(".")[2] in _PARAMETERS:  # not a constant of the graph
            tensors[initializer.name] = torch.from_numpy(numpy_helper.to_array(initializer).copy())
    if not any("." in name and value.ndim == 4 for name, value in tensors.items()):
        raise SetupError(
            f"{path} does not keep the names of the network's layers; import the PyTorch checkpoint that it was "
            "exported from."
        )
    return tensors
