"""ONNX files are read by the names of their weights, and run to find the reading that computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.errors import SetupError
from engine.model.onnx_run import MAX_ERROR, choose_by_running
from engine.model.onnx_weights import read_named_weights
from engine.model.reference import read_checkpoint
from tests.engine.model import layouts
from tests.engine.model.layouts import Reference, randomised


def written_out(network: Reference, path: Path, padding: str = "reflect", *, has_norms: bool = True) -> Path:
    """Write `network`, of one block, as the nodes that exporters make of it, under the names of its parameters."""
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    nodes, width = [], {"model.1": 4, "model.4": 8, "model.7": 16}

    def node(op: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))  # type: ignore[arg-type]
        return name

    def conv(x: str, key: str, op: str = "Conv", **attributes: object) -> str:
        return node(op, f"{key}:out", x, f"{key}.weight", f"{key}.bias", **attributes)

    def norm(x: str, channels: int) -> str:
        ones, zeros = f"ones{channels}", f"zeros{channels}"
        state.setdefault(ones, np.ones(channels, np.float32))
        state.setdefault(zeros, np.zeros(channels, np.float32))
        return node("InstanceNormalization", f"{x}:norm", x, ones, zeros, epsilon=1e-5) if has_norms else x

    def pad(x: str, pixels: int, mode: str) -> str:
        state[f"pads{pixels}"] = np.array([0, 0, pixels, pixels] * 2, np.int64)
        return node("Pad", f"{x}:padded", x, f"pads{pixels}", mode=mode)

    def relu(x: str) -> str:
        return node("Relu", f"{x}:relu", x)

    mode = {"reflect": "reflect", "replicate": "edge", "zero": "constant"}[padding]
    x = relu(norm(conv(pad("input", 3, "reflect"), "model.1"), width["model.1"]))
    for key in ("model.4", "model.7"):
        x = relu(norm(conv(x, key, strides=[2, 2], pads=[1, 1, 1, 1]), width[key]))
    y = relu(norm(conv(pad(x, 1, mode), "model.10.conv_block.1"), 16))
    y = norm(conv(pad(y, 1, mode), "model.10.conv_block.5"), 16)
    x = node("Add", "added", x, y)
    for key, channels in (("model.11", 8), ("model.14", 4)):
        up = conv(x, key, "ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
        x = relu(norm(up, channels))
    node("Tanh", "output", conv(pad(x, 3, "reflect"), "model.18"))
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("input", "output")
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in state.items()]
    graph = helper.make_graph(nodes, "generator", images[:1], images[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("padding", "has_norms"), [("reflect", True), ("replicate", True), ("zero", True), ("reflect", False)]
)
def test_nothing_has_to_be_assumed_of_an_onnx_file(padding: str, has_norms: bool, tmp_path: Path) -> None:
    network = Reference(1)
    randomised(network)
    checkpoint = read_checkpoint(written_out(network, tmp_path / "net.onnx", padding, has_norms=has_norms))
    module, error = choose_by_running(checkpoint)
    assert error < 1e-5 < MAX_ERROR
    assert (module.arch.padding, module.arch.norm) == (padding, "instance" if has_norms else "none")
    assert torch.equal(module.state_dict()["model.18.weight"], network.state_dict()["model.18.weight"])


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    network = Reference(1)
    randomised(network)
    path = written_out(network, tmp_path / "net.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Tanh":
            node.op_type = "Sigmoid"
    onnx.save(model, path)
    with pytest.raises(
        SetupError, match=r"no network that Solstice builds computes what the file does \(the nearest, --nor"
    ):
        choose_by_running(read_checkpoint(path))


def test_files_without_names_or_that_are_no_onnx_are_refused(tmp_path: Path) -> None:
    path = written_out(Reference(1), tmp_path / "net.onnx")
    model = onnx.load(path)
    for place, weight in enumerate(model.graph.initializer):
        weight.name = f"onnx::Conv_{place}"
    onnx.save(model, path)
    with pytest.raises(
        SetupError, match="does not keep the names of the network's layers; import the PyTorch checkpoint"
    ):
        read_named_weights(path)
    path.write_bytes(b"hello")
    with pytest.raises(SetupError, match="cannot be read as an ONNX file"):
        read_named_weights(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(SetupError, match="keeps its weights in other files"):
        read_named_weights(path)


def test_a_discriminator_is_named_in_an_onnx_file_too(tmp_path: Path) -> None:
    state = layouts.Discriminator().state_dict()
    graph = helper.make_graph(
        [], "d", [], [], [numpy_helper.from_array(value.numpy(), key) for key, value in state.items()]
    )
    onnx.save(helper.make_model(graph), tmp_path / "d.onnx")
    with pytest.raises(SetupError, match=r"a discriminator \(PatchGAN\) of 5 convolutions"):
        read_checkpoint(tmp_path / "d.onnx")
