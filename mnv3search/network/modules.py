"""The modules that a network is made of; each is built from its spec and its input channels.

Modules are registered in the order in which they run, and bear the names of :mod:`mnv3search.layers`. Under
``torch.no_grad()`` activations, scalings and additions work in place, as the peak memory of ``cost`` assumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, Padding, SqueezeExciteSpec
from mnv3search.network.dropout import drop
from mnv3search.network.fast_gradients import convolve

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
    """What holds in a whole network: padding, convolution biases, and batch norm's eps and momentum."""

    padding: Padding
    conv_bias: bool
    norm_eps: float
    norm_momentum: float

    @classmethod
    def of(cls, architecture: Architecture) -> Conventions:
        """The conventions of ``architecture``."""
        return cls(architecture.padding, architecture.conv_bias, architecture.norm_eps, architecture.norm_momentum)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """A batch norm over maps of ``channels``."""
        return nn.BatchNorm2d(channels, eps=self.norm_eps, momentum=self.norm_momentum)


class SamePadConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``SAME``: what the stride needs, the odd pixel at the bottom and right."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (_same_padding(int(size), kernel, stride) for size in input.shape[-2:])
        if not height and not width:
            return super().forward(input)
        padded = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(padded)


def _same_padding(size: int, kernel: int, stride: int) -> int:
    """Pixels that ``SAME`` adds in one direction, both ends together."""
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class ConvNormActivation(nn.Module):
    """Convolution, batch norm and, where there is one, an activation: (N, C, H, W) to (N, C', ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        conventions: Conventions,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        # At stride 1 an odd kernel's SAME padding is the symmetric one.
        same = conventions.padding == "same" and stride > 1
        conv = SamePadConv2d if same else nn.Conv2d
        padding = 0 if same else kernel_size // 2
        self.conv = conv(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=conventions.conv_bias
        )
        self.norm = conventions.norm(out_channels)
        self.activation = ACTIVATIONS[activation]() if activation else None
        self.fast_gradients = False

    def forward(self, features: Tensor) -> Tensor:
        """Runs the three in order."""
        features = self.norm(self._convolved(features))
        return features if self.activation is None else self.activation(features)

    def _convolved(self, features: Tensor) -> Tensor:
        return convolve(self.conv, features) if self.fast_gradients else self.conv(features)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the global pool of all (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, spec: SqueezeExciteSpec, conventions: Conventions) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, spec.squeeze_channels, 1, bias=spec.use_bias)
        self.reduce_norm = conventions.norm(spec.squeeze_channels) if spec.use_norm else None
        self.activation = ACTIVATIONS[spec.activation]()
        self.expand = nn.Conv2d(spec.squeeze_channels, channels, 1, bias=spec.use_bias)
        self.expand_norm = conventions.norm(channels) if spec.use_norm else None
        self.gate = ACTIVATIONS[spec.gate]()
        self.fast_gradients = False

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        squeezed = self._convolved(self.reduce, functional.adaptive_avg_pool2d(features, 1))
        if self.reduce_norm is not None:
            squeezed = self.reduce_norm(squeezed)
        scale = self._convolved(self.expand, self.activation(squeezed))
        if self.expand_norm is not None:
            scale = self.expand_norm(scale)
        scale = self.gate(scale)
        # The backward pass needs the features as they were.
        return features * scale if torch.is_grad_enabled() else features.mul_(scale)

    def _convolved(self, conv: nn.Conv2d, features: Tensor) -> Tensor:
        return convolve(conv, features) if self.fast_gradients else conv(features)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection, with squeeze-excite and shortcut as the spec says.

    Source: Sandler et al. 2018 (arXiv:1801.04381), Howard et al. 2019 (arXiv:1905.02244); without expansion and
    shortcut and with an activation after the projection it is V1's separable block (arXiv:1704.04861).
    """

    def __init__(self, in_channels: int, spec: BlockSpec, conventions: Conventions) -> None:
        super().__init__()
        self.spec = spec
        self.has_residual = spec.has_residual(in_channels)
        expanded, out, se = spec.expanded_channels, spec.out_channels, spec.squeeze_excite
        position = se.position if se else None
        self.expansion: ConvNormActivation | None = None
        channels = in_channels
        if spec.has_expansion(in_channels):
            self.expansion = ConvNormActivation(in_channels, expanded, conventions, activation=spec.activation)
            channels = expanded
        self.depthwise = ConvNormActivation(
            channels, expanded, conventions, kernel_size=spec.kernel_size, stride=spec.stride, groups=channels,
            activation=spec.activation,
        )  # fmt: skip
        if se is not None and position == "depthwise":
            self.squeeze_excite = SqueezeExcite(expanded, se, conventions)
        self.projection = ConvNormActivation(
            expanded, out, conventions, activation=None if spec.linear_bottleneck else spec.activation
        )
        if se is not None and position == "projection":
            self.squeeze_excite = SqueezeExcite(out, se, conventions)
        self.se_position = position
        self.shortcut: ConvNormActivation | None = None
        if spec.has_projected_shortcut(in_channels):
            self.shortcut = ConvNormActivation(in_channels, out, conventions)

    def forward(self, entered: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        features: Tensor = entered if self.expansion is None else self.expansion(entered)
        features = self.depthwise(features)
        if self.se_position == "depthwise":
            features = self.squeeze_excite(features)
        features = self.projection(features)
        if self.se_position == "projection":
            features = self.squeeze_excite(features)
        if not self.has_residual:
            return features
        residual: Tensor = entered if self.shortcut is None else self.shortcut(entered)
        return features + residual if torch.is_grad_enabled() else features.add_(residual)


class Head(nn.Module):
    """From the last block's maps to the logits, as :class:`~mnv3search.architecture.HeadSpec` says."""

    def __init__(self, in_channels: int, spec: HeadSpec, classes: int, conventions: Conventions) -> None:
        super().__init__()
        self.feature: ConvNormActivation | None = None
        self.squeeze_excite: SqueezeExcite | None = None
        self.hidden: nn.Linear | None = None
        self.hidden_norm: nn.BatchNorm1d | None = None
        self.hidden_activation: nn.Module | None = None
        channels = in_channels
        if spec.feature_channels is not None:
            self.feature = ConvNormActivation(channels, spec.feature_channels, conventions, activation=spec.activation)
            channels = spec.feature_channels
            if spec.squeeze_excite is not None:
                self.squeeze_excite = SqueezeExcite(channels, spec.squeeze_excite, conventions)
        if spec.hidden_channels is not None:
            self.hidden = nn.Linear(channels, spec.hidden_channels, bias=spec.hidden_bias)
            channels = spec.hidden_channels
            if spec.hidden_norm:
                self.hidden_norm = nn.BatchNorm1d(
                    channels, eps=conventions.norm_eps, momentum=conventions.norm_momentum
                )
            self.hidden_activation = ACTIVATIONS[spec.activation]()
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(channels, classes)
        self.fast_gradients = False

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, H, W) to logits (N, classes)."""
        if self.feature is not None:
            features = self.feature(features)
        if self.squeeze_excite is not None:
            features = self.squeeze_excite(features)
        features = functional.adaptive_avg_pool2d(features, 1).flatten(1)
        if self.hidden is not None:
            features = self.hidden(features)
        if self.hidden_norm is not None:
            features = self.hidden_norm(features)
        if self.hidden_activation is not None:
            features = self.hidden_activation(features)
        features = drop(self.dropout, features) if self.fast_gradients else self.dropout(features)
        logits: Tensor = self.classifier(features)
        return logits
