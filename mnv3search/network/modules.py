"""The modules that a network is made of, built and run by the list of its layers.

Modules are registered in the order in which they run, and have the names of :mod:`mnv3search.layers`. Under
``torch.no_grad()`` activations, scalings and additions work in place, as the peak memory of ``cost`` assumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnv3search.architecture import Architecture, HeadSpec, Padding, same_padding
from mnv3search.blocks import LayerKind
from mnv3search.layers import LINEAR, Layer, Unit, last_readers, unit_layers

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "relu": lambda: nn.ReLU(inplace=True),
        "relu6": lambda: nn.ReLU6(inplace=True),
        "hard_swish": lambda: nn.Hardswish(inplace=True),
        "swish": lambda: nn.SiLU(inplace=True),
        "hard_sigmoid": lambda: nn.Hardsigmoid(inplace=True),
        "sigmoid": nn.Sigmoid,
    }
)


@dataclass(frozen=True, slots=True)
class Conventions:
    """What holds in a whole network: padding, and batch norm's eps and momentum."""

    padding: Padding
    norm_eps: float
    norm_momentum: float

    @classmethod
    def of(cls, architecture: Architecture) -> Conventions:
        """Those of ``architecture``."""
        return cls(architecture.padding, architecture.norm_eps, architecture.norm_momentum)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """A batch norm over maps of ``channels``."""
        return nn.BatchNorm2d(channels, eps=self.norm_eps, momentum=self.norm_momentum)


def module_paths(layer: Layer) -> tuple[str, str]:
    """Where a layer of a unit or network has its convolution or linear layer, and its norm, among the modules."""
    if layer.kind in LINEAR or layer.kind.startswith("squeeze_"):
        return layer.name, f"{layer.name}_norm"
    path = layer.name.removesuffix("conv") if layer.kind == "stem" else f"{layer.name}."
    return f"{path}conv", f"{path}norm"


class SamePadConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``SAME``: what the stride needs, the odd pixel at the bottom and right."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (same_padding(int(size), kernel, stride) for size in input.shape[-2:])
        if not height and not width:
            return super().forward(input)
        padded = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(padded)


class ConvNormActivation(nn.Module):
    """Convolution, batch norm and, where there is one, an activation: (N, C, H, W) to (N, C', ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(self, layer: Layer, conventions: Conventions) -> None:
        super().__init__()
        # At stride 1 an odd kernel's SAME padding is the symmetric one.
        same = conventions.padding == "same" and layer.stride > 1
        conv = SamePadConv2d if same else nn.Conv2d
        padding = 0 if same else layer.kernel_size // 2
        self.conv = conv(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, padding, groups=layer.groups,
            bias=layer.bias,
        )  # fmt: skip
        self.norm = conventions.norm(layer.out_channels)
        self.activation = ACTIVATIONS[layer.activation]() if layer.activation else None

    def forward(self, features: Tensor) -> Tensor:
        """Runs the three in order."""
        features = self.norm(self.conv(features))
        return features if self.activation is None else self.activation(features)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the global pool of all (Hu et al. 2018, arXiv:1709.01507).

    ``in_place``: it may change what it is given where no gradient is asked for.
    """

    def __init__(self, reduce: Layer, expand: Layer, conventions: Conventions, *, in_place: bool = True) -> None:
        super().__init__()
        channels, squeeze = reduce.in_channels, reduce.out_channels
        self.reduce = nn.Conv2d(channels, squeeze, 1, bias=reduce.bias)
        self.reduce_norm = conventions.norm(squeeze) if reduce.norm else None
        self.activation = ACTIVATIONS[reduce.activation]()
        self.expand = nn.Conv2d(squeeze, channels, 1, bias=expand.bias)
        self.expand_norm = conventions.norm(channels) if expand.norm else None
        self.gate = ACTIVATIONS[expand.activation]()
        self.in_place = in_place

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        squeezed = self.reduce(functional.adaptive_avg_pool2d(features, 1))
        if self.reduce_norm is not None:
            squeezed = self.reduce_norm(squeezed)
        scale = self.expand(self.activation(squeezed))
        if self.expand_norm is not None:
            scale = self.expand_norm(scale)
        scale = self.gate(scale)
        # The backward pass needs the features as they were.
        return features.mul_(scale) if self.in_place and not torch.is_grad_enabled() else features * scale


class _Step(NamedTuple):
    """One step of a unit's forward: the module (empty: an addition or the pool) that makes one value of others.

    Values stand in slots, which are used again once nothing later reads what they hold.
    """

    kind: LayerKind
    module: str
    source: int
    other: int
    target: int
    in_place: bool


def _run_module(module: nn.Module, features: Tensor) -> Tensor:
    result: Tensor = module(features)  # not nn.Module.__call__ itself, which tracers replace
    return result


class UnitModule(nn.Module):
    """A block or head, made and run by its list of layers; each layer's module has the layer's name.

    The inverted residual is that of Sandler et al. 2018 (arXiv:1801.04381) and Howard et al. 2019 (arXiv:1905.02244).
    """

    def __init__(self, unit: Unit, conventions: Conventions) -> None:
        super().__init__()
        layers = unit_layers(unit)
        last = last_readers(layers)
        slots, free, steps = [0], list[int](), list[_Step]()  # the slot of each tensor by its number
        for number, layer in enumerate(layers, 1):
            if layer.kind.startswith("squeeze_"):
                slots.append(-1)  # within the module of the scaling that follows
                continue
            in_place = layer.source > 0 and last[layer.source] == number
            source, other = slots[layer.source], slots[layer.other] if layer.kind == "add" else -1
            ended = {tensor for tensor in (layer.source, layer.other) if tensor >= 0 and last[tensor] == number}
            free += {slots[tensor] for tensor in ended} - {-1}
            slots.append(free.pop() if free else max(slots) + 1)
            for module in self._made(number, layers, conventions, in_place):
                steps.append(_Step(layer.kind, module, source, other, slots[-1], in_place))
                source = slots[-1]
        self._steps, self._slots = tuple(steps), max(slots) + 1

    def _made(self, number: int, layers: Sequence[Layer], conventions: Conventions, in_place: bool) -> Iterator[str]:
        """Makes the modules of the ``number``-th layer; gives their names, an empty one where nothing is learned."""
        layer = layers[number - 1]
        name = layer.name
        if layer.kind == "scale":
            name = name.rpartition(".")[0]
            reduce, expand = layers[number - 3 : number - 1]
            self.add_module(name, SqueezeExcite(reduce, expand, conventions, in_place=in_place))
        elif layer.kind in LINEAR:
            self.add_module(name, nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias))
        elif layer.kernel_size:
            self.add_module(name, ConvNormActivation(layer, conventions))
        else:
            name = ""
        yield name
        if layer.kind in LINEAR and layer.norm:
            norm = nn.BatchNorm1d(layer.out_channels, conventions.norm_eps, conventions.norm_momentum)
            self.add_module(f"{name}_norm", norm)
            yield f"{name}_norm"
        if layer.kind in LINEAR and layer.activation:
            self.add_module(f"{name}_activation", ACTIVATIONS[layer.activation]())
            yield f"{name}_activation"

    def forward(self, entered: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', ⌈H/stride⌉, ⌈W/stride⌉), or to (N, classes)."""
        return self.run(entered)

    def run(
        self, entered: Tensor, call: Callable[[nn.Module, Tensor], Tensor] = _run_module,
        skip: frozenset[LayerKind] = frozenset(),
    ) -> Tensor:  # fmt: skip
        """The forward pass with every module run by ``call``, and layers of the kinds ``skip`` passing their source on.

        Without ``add`` and ``shortcut`` there are no residuals, without ``scale`` no squeeze-excite.
        """
        modules, values, target = self._modules, [entered] * self._slots, 0
        for kind, name, source, other, target, in_place in self._steps:
            features = values[source]
            if kind in skip:
                values[target] = features
            elif other >= 0:
                free = in_place and not torch.is_grad_enabled()
                values[target] = features.add_(values[other]) if free else features + values[other]
            elif name:
                values[target] = call(modules[name], features)  # type: ignore[arg-type]
            else:
                values[target] = functional.adaptive_avg_pool2d(features, 1).flatten(1)
        return values[target]


class Head(UnitModule):
    """From the last block's maps (N, C, H, W) to logits (N, classes), with dropout before the classifier."""

    dropout: nn.Dropout
    classifier: nn.Linear

    def __init__(self, unit: Unit, conventions: Conventions) -> None:
        super().__init__(unit, conventions)
        assert isinstance(unit.spec, HeadSpec)
        self.dropout = nn.Dropout(unit.spec.dropout)
        *before, last = self._steps
        self._steps = (*before, last._replace(module="dropout", target=last.source), last)
