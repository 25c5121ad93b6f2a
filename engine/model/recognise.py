"""Tell what network a state dict is of, from its keys and shapes.

The generators that Solstice builds are numbered as in pytorch-CycleGAN-and-pix2pix, CUT or PyTorch-GAN. Layers without
parameters (padding, ReLU, dropout, up-sampling) leave gaps in the numbers of an `nn.Sequential`, from which they can be
told: a residual block whose convolutions are numbers 1 and 5 pads each of them by a layer of its own, 1 and 6 has
dropout, and 0 and 3 pads inside the convolutions. Other networks are recognised as far as a refusal can name them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import Tensor

from engine.model.card import CHANNELS

Params = dict[str, Tensor]

_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "filt")


@dataclass(frozen=True)
class Layer:
    """A convolution of a checkpoint and the norm after it, each by the path of its keys."""

    convolution: str
    norm: str | None
    """Path that a norm after the convolution has; None if there is none."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a state dict is of."""

    what: str
    """In words, with an article."""
    problem: str = ""
    """Why it is not a generator that Solstice builds; empty if it is one."""
    is_generator: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Architecture` that keys and shapes determine."""
    layers: Sequence[Layer] = ()
    """Convolutions in the order of the computation's first half, then its second: that of the module's own."""
    has_norm_slots: bool = True
    """There is a layer, perhaps without parameters, between each convolution and its activation."""
    blurs: Sequence[tuple[str, int]] = ()
    """Keys of fixed low-pass filters, with the number of their taps on a side."""


def recognise(tensors: Mapping[str, Tensor]) -> Seen | None:
    """Return what `tensors` are of; None if that is unknown, as for one with a prefix."""
    modules = group_by_module(tensors)
    for recogniser in _RECOGNISERS:
        seen = recogniser(modules)
        if seen is not None:
            return seen
    return None


def describe_unknown(tensors: Mapping[str, Tensor], count: int = 3) -> str:
    """Return the first keys and shapes of a network that is not recognised."""
    first = ", ".join(f"{key:.60} {list(value.shape)}" for key, value in list(tensors.items())[:count])
    more = f" and {len(tensors) - count:,} more" if len(tensors) > count else ""
    return f"a network that is not recognised, with the tensors {first}{more}"


def group_by_module(tensors: Mapping[str, Tensor]) -> dict[str, Params]:
    """Return the parameters and buffers of each module by its path, in natural order: `model.2` before `model.10`."""
    modules: dict[str, Params] = {}
    for key, value in tensors.items():
        path, _, name = key.rpartition(".")
        modules.setdefault(path, {})[name] = value
    return dict(sorted(modules.items(), key=lambda item: _natural(item[0])))


def _natural(path: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in path.split(".")]


def _is_convolution(params: Params) -> bool:
    return "weight" in params and params["weight"].ndim == 4


def _shape(params: Params) -> tuple[int, int, int, int]:
    first, second, rows, columns = params["weight"].shape
    return first, second, rows, columns


@dataclass
class _Item:
    """A direct child of the generator's `nn.Sequential`: a layer, or a block or sequence with layers of its own."""

    index: int
    path: str
    is_block: bool
    inner: dict[int | None, tuple[str, Params]]
    """Layers by number; None for the item itself."""

    @property
    def params(self) -> Params:
        """Parameters of the item itself; empty for a block or sequence."""
        return self.inner.get(None, ("", {}))[1]


class _Unbuildable(Exception):
    """Raised when a network is of a known family but has something that Solstice does not build."""


_ITEM = re.compile(r"(model\.)?(?P<index>\d+)(?P<block>\.(?:conv_)?block)?(?:\.(?P<inner>\d+))?")


def _resnet(modules: dict[str, Params]) -> Seen | None:
    """Recognise ResNet generators: a 7x7 convolution, down-sampling, residual blocks, up-sampling, a 7x7 one."""
    items: dict[int, _Item] = {}
    for path, params in modules.items():
        match = _ITEM.fullmatch(path)
        if match is None:
            return None
        index, inner = int(match["index"]), match["inner"]
        own = f"{match[1] or ''}{index}"
        item = items.setdefault(index, _Item(index, own, match["block"] is not None, {}))
        item.inner[None if inner is None else int(inner)] = (path, params)
    convolutions = [item for item in items.values() if _is_convolution(item.params)]
    if not convolutions or not any(item.is_block for item in items.values()):
        return None
    if _shape(convolutions[0].params)[2:] != (7, 7) or _shape(convolutions[-1].params)[2:] != (7, 7):
        return None
    walk = _ResnetWalk(list(items.values()))
    try:
        walk.run()
    except _Unbuildable as error:
        return Seen(what=walk.description(), problem=str(error), is_generator=True)
    return Seen(
        what=walk.description(),
        is_generator=True,
        fields=walk.fields,
        layers=walk.layers,
        has_norm_slots=walk.has_norm_slots,
        blurs=walk.blurs,
    )


class _ResnetWalk:
    """Read a ResNet generator item by item; raises `_Unbuildable` at the first one that does not belong."""

    def __init__(self, items: list[_Item]) -> None:
        self._items = items
        self._place = 0
        self._free = 0
        """Number of the first layer after those accounted for."""
        self.layers: list[Layer] = []
        self.blurs: list[tuple[str, int]] = []
        self.fields: dict[str, Any] = {"network": "resnet"}
        self.has_norm_slots = True

    def run(self) -> None:
        """Read all items."""
        halvings = self._num_convolutions_before_blocks() - 1
        if halvings != 2:
            raise _Unbuildable(f"Solstice builds networks with 2 down-samplings, not {halvings}")
        stem = self._convolution(pad_layers=1)
        ngf, channels_in = _shape(stem)[:2]
        self.has_norm_slots = self._peek().index != self._free - 1 or self._place > 1
        if not self.has_norm_slots:
            self._free -= 1
        width, blurred = self._down(ngf)
        blocks = [item for item in self._items if item.is_block]
        paddings = {self._block(width) for _ in blocks}
        if len(paddings) != 1:
            raise _Unbuildable("its residual blocks differ from each other")
        upsample = self._up(width)
        last = self._convolution(pad_layers=1, norm_follows=False)
        channels_out, width, *_ = _shape(last)
        if width != ngf or self._place < len(self._items):
            extra = self._items[self._place].path if self._place < len(self._items) else self.layers[-1].convolution
            raise _Unbuildable(f"it has a layer more than the network of the paper, {extra}")
        for channels, word in ((channels_in, "input"), (channels_out, "output")):
            if channels not in CHANNELS:
                raise _Unbuildable(f"it has {channels} {word} channels, where Solstice builds 1, 3 or 4")
        self.fields |= {
            "blocks": len(blocks),
            "ngf": ngf,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "padding": paddings.pop(),
            "downsample": "blur" if blurred else "strided",
            "upsample": upsample,
        }

    def description(self) -> str:
        """Return the network in words; with numbers that hold for any network of the family."""
        first = next(item for item in self._items if _is_convolution(item.params))
        num_blocks = sum(item.is_block for item in self._items)
        return f"a ResNet generator of {num_blocks} block{'s'[: num_blocks != 1]} and width {_shape(first.params)[0]}"

    def _num_convolutions_before_blocks(self) -> int:
        first_block = next(item.index for item in self._items if item.is_block)
        return sum(_is_convolution(item.params) and item.index < first_block for item in self._items)

    def _peek(self) -> _Item:
        if self._place == len(self._items):
            raise _Unbuildable(f"it ends after {self._items[-1].path}")
        return self._items[self._place]

    def _convolution(self, *, pad_layers: int, norm_follows: bool = True) -> Params:
        """Read a convolution after `pad_layers` layers without parameters, and its norm; return its parameters."""
        item = self._peek()
        if not _is_convolution(item.params):
            raise _Unbuildable(f"it has {item.path} where a convolution was expected")
        gap = item.index - self._free
        if gap != pad_layers:
            raise _Unbuildable(
                f"it has {gap} layers without weights before the convolution {item.path}, not {pad_layers}"
            )
        self._place += 1
        self._add(item.path, item.params, f"{_parent(item.path)}{item.index + 1}" if norm_follows else None)
        if norm_follows:
            self._skip_norm(item.index + 1)
            self._free = item.index + 2 + self.has_norm_slots  # after the norm and the ReLU
        else:
            self._free = item.index + 2
        return item.params

    def _add(self, path: str, params: Params, norm: str | None) -> None:
        unknown = params.keys() - {"weight", "bias"}
        if unknown:
            raise _Unbuildable(f"its convolution {path} has {', '.join(sorted(unknown))}")
        self.layers.append(Layer(path, norm))

    def _skip_norm(self, index: int) -> None:
        if self._place < len(self._items) and self._items[self._place].index == index:
            item = self._items[self._place]
            if not item.params or not _is_norm(item.params):
                raise _Unbuildable(f"it has {item.path} where a norm was expected")
            self._place += 1

    def _down(self, width: int) -> tuple[int, bool]:
        """Read the down-sampling convolutions; return the channels after them and whether low-pass filters follow."""
        blurs = []
        for _ in range(2):
            params = self._convolution(pad_layers=0)
            if _shape(params) != (2 * width, width, 3, 3):
                raise _Unbuildable(
                    f"its down-sampling convolution {self.layers[-1].convolution} has the shape {list(_shape(params))}"
                )
            width *= 2
            blurs.append(self._blur(3))
        if blurs[0] != blurs[1]:
            raise _Unbuildable("only one of its down-sampling layers has a low-pass filter")
        return width, blurs[0]

    def _blur(self, taps: int) -> bool:
        """Read a fixed low-pass filter if there is one."""
        if self._place == len(self._items) or set(self._items[self._place].params) != {"filt"}:
            return False
        item = self._items[self._place]
        if item.index != self._free or item.params["filt"].shape[2:] != (taps, taps):
            raise _Unbuildable(f"it has a low-pass filter {item.path} of shape {list(item.params['filt'].shape)}")
        self.blurs.append((f"{item.path}.filt", taps))
        self._place += 1
        self._free += 1
        return True

    def _block(self, width: int) -> str:
        """Read a residual block; return the padding that its numbers imply."""
        item = self._peek()
        if not item.is_block:
            raise _Unbuildable(f"it has {item.path} between its residual blocks")
        if item.index != self._free:
            raise _Unbuildable(f"it has a layer without weights before the residual block {item.path}")
        layers = {number: params for number, (_, params) in item.inner.items() if number is not None}
        numbers = [number for number, params in layers.items() if _is_convolution(params)]
        if len(numbers) != 2:
            raise _Unbuildable(f"its residual block {item.path} has {len(numbers)} convolutions, not two")
        first, second = numbers
        slots = int(self.has_norm_slots)
        if first not in (0, 1) or second - 2 * first - 2 - slots not in (0, 1):  # 1 with a dropout layer
            raise _Unbuildable(f"the convolutions of its residual block {item.path} are layers {first} and {second}")
        for number, (path, params) in item.inner.items():
            if number in numbers:
                if _shape(params) != (width, width, 3, 3):
                    raise _Unbuildable(f"its convolution {path} has the shape {list(_shape(params))}")
                self._add(path, params, f"{_parent(path)}{int(number or 0) + 1}" if slots else None)
            elif not slots or number not in (first + 1, second + 1) or not _is_norm(params):
                raise _Unbuildable(f"it has {path}, a layer that a residual block of the paper has not")
        self._place += 1
        self._free += 1
        return "reflect" if first else "zero"

    def _up(self, width: int) -> str:
        """Read the up-sampling layers; return their kind."""
        kinds = []
        for _ in range(2):
            kinds.append(self._up_once(width))
            width //= 2
        if kinds[0] != kinds[1]:
            raise _Unbuildable(f"its up-sampling layers are of two kinds, {kinds[0]} and {kinds[1]}")
        return kinds[0]

    def _up_once(self, width: int) -> str:
        blurred = self._blur(4)
        item = self._peek()
        if (
            not item.params and not item.is_block and list(item.inner) == [2]
        ):  # an inner sequence: enlarge, pad, convolve
            return self._inner_sequence(item, width)
        if not _is_convolution(item.params):
            raise _Unbuildable(f"it has {item.path} where an up-sampling layer was expected")
        gap, shape = item.index - self._free, _shape(item.params)
        transposed, plain = (width, width // 2, 3, 3), (width // 2, width, 3, 3)
        kind = {(transposed, 0): "transpose", (plain, 1): "nearest", (plain, 2): "resize"}.get((shape, gap))
        if blurred:
            kind = "blur" if (shape, gap) == (plain, 0) else None
        if kind is None:
            raise _Unbuildable(
                f"its up-sampling layer {item.path} has the shape {list(shape)} after {gap} other layers"
            )
        self._convolution(pad_layers=gap)
        return kind

    def _inner_sequence(self, item: _Item, width: int) -> str:
        path, params = item.inner[2]
        if not _is_convolution(params) or _shape(params) != (width // 2, width, 3, 3) or item.index != self._free:
            raise _Unbuildable(f"its up-sampling layer {path} has other shapes")
        self._place += 1
        self._add(path, params, f"{_parent(item.path)}{item.index + 1}")
        self._skip_norm(item.index + 1)
        self._free = item.index + 2 + self.has_norm_slots
        return "resize"


def _parent(path: str) -> str:
    return path[: path.rfind(".") + 1]


def _is_norm(params: Params) -> bool:
    return set(params) <= set(_PARAMETERS) - {"filt"} and all(value.ndim <= 1 for value in params.values())


_UNET = re.compile(r"model(?:\.model\.\d+)+")


def _unet(modules: dict[str, Params]) -> Seen | None:
    """Recognise the reference's U-Nets: each level is a sequence that contains the next one."""
    if not modules or not all(_UNET.fullmatch(path) for path in modules):
        return None
    levels = _unet_levels(modules)
    if levels is None:
        return None
    what = f"a U-Net of {levels} levels and width {_shape(modules[_unet_path(0, 0)])[0]}"
    down = [_unet_path(level, 0 if level == 0 else 1) for level in range(levels)]
    up = [_unet_path(level, 3 if level in (0, levels - 1) else 5) for level in range(levels)]
    layers = [Layer(path, _next(path) if 0 < level < levels - 1 else None) for level, path in enumerate(down)]
    layers += [Layer(up[level], _next(up[level]) if level else None) for level in reversed(range(levels))]
    try:
        fields = _unet_fields(modules, levels, down, up, layers)
    except _Unbuildable as error:
        return Seen(what=what, problem=str(error), is_generator=True)
    return Seen(what=what, is_generator=True, fields=fields, layers=layers)


def _unet_levels(modules: dict[str, Params]) -> int | None:
    levels = 0
    while _is_convolution(modules.get(_unet_path(levels, 1 if levels else 0), {})):
        levels += 1
    return levels if levels >= 2 and _is_convolution(modules.get(_unet_path(0, 3), {})) else None


def _unet_path(level: int, number: int) -> str:
    """Return the path of layer `number` of a level; the outermost one contains the next as layer 1, others as 3."""
    return "model" + "".join(f".model.{3 if inner else 1}" for inner in range(level)) + f".model.{number}"


def _next(path: str) -> str:
    parent, number = path.rsplit(".", 1)
    return f"{parent}.{int(number) + 1}"


def _unet_fields(
    modules: dict[str, Params], levels: int, down: list[str], up: list[str], layers: list[Layer]
) -> dict[str, Any]:
    expected = {*down, *up, *(layer.norm for layer in layers if layer.norm)}
    extra = next((path for path in modules if path not in expected), None)
    if extra is not None:
        raise _Unbuildable(f"it has a layer {extra}, which the reference's U-Net has not")
    for path in (layer.norm for layer in layers if layer.norm in modules):
        if path is not None and not _is_norm(modules[path]):
            raise _Unbuildable(f"it has {path} where a norm was expected")
    for path in (*down, *up):
        if not modules.get(path, {}).keys() <= {"weight", "bias"}:
            raise _Unbuildable(f"its convolution {path} has {', '.join(sorted(modules[path]))}")
    ngf, channels_in = modules[down[0]]["weight"].shape[:2]
    widths = [ngf * min(8, 2**level) for level in range(levels)]
    channels_out = modules[up[0]]["weight"].shape[1] if up[0] in modules else 0
    for level, path in enumerate(down):
        inputs = widths[level - 1] if level else channels_in
        _require_shape(modules, path, (widths[level], inputs, 4, 4))
    for level, path in enumerate(up):
        inputs = widths[level] * (1 if level == levels - 1 else 2)
        _require_shape(modules, path, (inputs, widths[level - 1] if level else channels_out, 4, 4))
    for channels, word in ((channels_in, "input"), (channels_out, "output")):
        if channels not in CHANNELS:
            raise _Unbuildable(f"it has {channels} {word} channels, where Solstice builds 1, 3 or 4")
    return {
        "network": "unet",
        "levels": levels,
        "ngf": int(ngf),
        "channels_in": int(channels_in),
        "channels_out": int(channels_out),
    }


def _require_shape(modules: dict[str, Params], path: str, shape: tuple[int, int, int, int]) -> None:
    params = modules.get(path, {})
    if not _is_convolution(params):
        raise _Unbuildable(f"it has no convolution {path}")
    if _shape(params) != shape:
        raise _Unbuildable(f"its convolution {path} has the shape {list(_shape(params))}, not {list(shape)}")


def _discriminator(modules: dict[str, Params]) -> Seen | None:
    """Recognise PatchGAN and PixelGAN discriminators: a chain of convolutions that ends in one channel."""
    chain = [_shape(params) for params in modules.values() if _is_convolution(params)]
    if not 3 <= len(chain) <= 12 or any(params["weight"].ndim > 4 for params in modules.values() if "weight" in params):
        return None
    if any(one[0] != other[1] for one, other in pairwise(chain)) or chain[-1][0] != 1:
        return None
    kernels = {shape[2:] for shape in chain}
    if kernels == {(1, 1)}:
        name = "PixelGAN"
    elif (4, 4) in kernels and kernels <= {(4, 4), (3, 3)} and chain[0][2:] == (4, 4):
        name = "PatchGAN"
    else:
        return None
    return Seen(
        what=f"a discriminator ({name}) of {len(chain)} convolutions",
        problem="a discriminator judges images and makes none; import the generator",
    )


@dataclass(frozen=True)
class _Signature:
    """A network that is recognised by keys that only it has."""

    what: str
    keys: tuple[str, ...]
    """Regular expressions, each of which some key must match in full."""


_SIGNATURES = (
    _Signature("a U-GAT-IT generator", (r"gamma\.weight", r"beta\.weight", r"UpBlock1_1\..*", r"gap_fc\.weight.*")),
    _Signature("a MUNIT generator", (r"enc_style\.model\..*", r"enc_content\.model\..*", r"dec\.model\..*")),
    _Signature("a StarGAN generator", (r"main\.0\.weight", r"main\.1\.weight", r"main\.\d+\.main\.0\.weight")),
    _Signature("a StyleGAN generator", (r"mapping\.fc0\.weight", r"synthesis\.b4\.const")),
    _Signature(
        "a U-Net generator of PyTorch-GAN's pix2pix",
        (r"down1\.model\.0\.weight", r"up1\.model\.0\.weight", r"final\..*"),
    ),
    _Signature(
        "a ResNet generator with named stages (initial, down_blocks, res_blocks, up_blocks)",
        (r"initial\.0\.weight", r"down_blocks\.0\..*", r"res(?:idual)?_blocks\.0\..*", r"up_blocks\.0\..*"),
    ),
    _Signature("a classifier of the VGG family", (r"features\.0\.weight", r"classifier\.0\.weight")),
    _Signature("a ResNet classifier", (r"conv1\.weight", r"layer1\.0\.conv1\.weight", r"fc\.weight")),
)


def _signature(modules: dict[str, Params]) -> Seen | None:
    """Recognise other well-known networks."""
    keys = [f"{path}.{name}" for path, params in modules.items() for name in params]
    for signature in _SIGNATURES:
        if all(any(re.fullmatch(pattern, key) for key in keys) for pattern in signature.keys):
            problem = "Solstice builds the generators of CycleGAN, CUT, pix2pix and PyTorch-GAN's CycleGAN"
            return Seen(what=signature.what, problem=problem)
    return None


_RECOGNISERS: tuple[Callable[[dict[str, Params]], Seen | None], ...] = (_resnet, _unet, _discriminator, _signature)


def params_of(tensors: Mapping[str, Tensor], path: str | None) -> Params:
    """Return the parameters and buffers of the module at `path`; empty if it has none."""
    if path is None:
        return {}
    return {name: tensors[key] for name in _PARAMETERS if (key := f"{path}.{name}") in tensors}
