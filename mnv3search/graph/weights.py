"""Seeded weights, as deployed (norms folded into their convolutions), that keep activations near 1.

A network that decays to zero or to subnormal numbers runs at another speed than a trained one. So every convolution
and linear layer is scaled, on a random image that runs through it, for outputs of root mean square 1, as a norm would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, same_padding
from mnv3search.layers import LINEAR, Layer, Unit, unit_layers, unit_names, units

Weights = dict[str, NDArray[np.float32]]
_Map = NDArray[np.float32]

BIAS_STD = 0.1
GATE_RMS = 0.3  # an unbounded gate (h-swish) that swings wide would square what the image varies, block by block
SAMPLE_SIZE = 14  # side of the image that scales a unit's weights; its statistics hardly depend on the side


def conv_padding(layer: Layer, padding: str) -> tuple[int, int]:
    """Zeros before and after each spatial axis; ``same`` as TensorFlow resolves it, the odd pixel at the end."""
    if padding == "symmetric":
        return layer.kernel_size // 2, layer.kernel_size // 2
    total = same_padding(layer.in_size, layer.kernel_size, layer.stride)
    return total // 2, total - total // 2


def unit_weights(unit: Unit, seed: int = 0) -> Weights:
    """Weights of a unit by name: ``expansion.weight``, ``expansion.bias``, ``squeeze_excite.reduce.bias`` …, in order.

    Convolutions are (out, in / groups, kernel, kernel), linear layers (out, in); all float32.
    """
    rng = np.random.default_rng(seed)
    small = unit._replace(in_size=min(unit.in_size, SAMPLE_SIZE))
    found: Weights = {}
    _draw_unit(found, small, "", rng.standard_normal((unit.in_channels, small.in_size**2), dtype=np.float32), rng)
    return found


def network_weights(architecture: Architecture, seed: int = 0) -> Weights:
    """Weights of a whole network by name: ``stem.conv.weight``, ``blocks.3.depthwise.bias`` and so on."""
    rng = np.random.default_rng(seed)
    found: Weights = {}
    x = rng.standard_normal((3, architecture.resolution**2), dtype=np.float32)
    for name, unit in zip(unit_names(architecture), units(architecture), strict=True):
        x = _draw_unit(found, unit, f"{name}.", x, rng)
    return found


def _draw_unit(found: Weights, unit: Unit, prefix: str, entered: _Map, rng: np.random.Generator) -> _Map:
    """Draw and scale a unit's weights on a map of shape (channels, size²); returns what leaves it."""
    tensors = [entered]
    for layer in unit_layers(unit):
        x = tensors[layer.source]
        if layer.kind in {"squeeze_pool", "pool"}:
            x = x.mean(axis=1, keepdims=True)
        elif layer.other >= 0:
            x = x * tensors[layer.other] if layer.kind == "scale" else x + tensors[layer.other]
        else:
            x = _draw_layer(found, layer, prefix, unit.padding, x, rng)
        tensors.append(x)
    return tensors[-1]


def _draw_layer(found: Weights, layer: Layer, prefix: str, padding: str, x: _Map, rng: np.random.Generator) -> _Map:
    fan_in, kernel = layer.in_channels // layer.groups, layer.kernel_size
    weight = rng.standard_normal((layer.out_channels, fan_in, kernel, kernel), dtype=np.float32)
    out = _convolve(x, weight, layer, conv_padding(layer, padding))
    if layer.kind == "squeeze_reduce":  # every second channel positive here: a wholly dead squeeze would gate nothing
        flipped = (out.mean(axis=1) < 0) & (np.arange(layer.out_channels) % 2 == 0)
        flip = np.where(flipped, np.float32(-1), np.float32(1))
        weight, out = weight * flip[:, None, None, None], out * flip[:, None]
    rms = np.float32(np.sqrt(np.mean(out**2)))
    target = np.float32(GATE_RMS if layer.kind == "squeeze_expand" else 1)
    scale = target / rms if rms > np.finfo(np.float32).tiny else np.float32(1)
    weight, out = weight * scale, out * scale
    found[f"{prefix}{layer.name}.weight"] = weight[:, :, 0, 0] if layer.kind in LINEAR else weight
    if layer.bias or layer.norm:
        bias = rng.standard_normal(layer.out_channels, dtype=np.float32) * np.float32(BIAS_STD)
        bias += np.float32(layer.kind == "squeeze_expand")  # gates around the middle of their range
        found[f"{prefix}{layer.name}.bias"] = bias
        out = out + bias[:, None]
    return _activate(out, layer.activation)


def _convolve(x: _Map, weight: _Map, layer: Layer, padding: tuple[int, int]) -> _Map:
    """A full, grouped or depthwise convolution of a (channels, size²) map, tap by tap."""
    size, out, stride = layer.in_size, layer.out_size, layer.stride
    maps = x.reshape(layer.in_channels, size, size)
    if layer.kernel_size > 1:
        around = padding[0], padding[1] + stride
        maps = np.pad(maps, ((0, 0), around, around))
    total = np.zeros((layer.out_channels, out * out), dtype=np.float32)
    span = (out - 1) * stride + 1
    for row in range(layer.kernel_size):
        for column in range(layer.kernel_size):
            tap = maps[:, row : row + span : stride, column : column + span : stride].reshape(layer.in_channels, -1)
            if layer.groups == 1:
                total += weight[:, :, row, column] @ tap
            else:
                total += weight[:, :1, row, column] * np.repeat(tap, layer.out_channels // layer.groups, axis=0)
    return total


def _activate(x: _Map, activation: str) -> _Map:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "relu6":
        return np.clip(x, 0, 6)
    if activation in {"sigmoid", "swish"}:
        gate: _Map = np.reciprocal(1 + np.exp(-x), dtype=np.float32)
        return gate if activation == "sigmoid" else x * gate
    if activation in {"hard_sigmoid", "hard_swish"}:
        hard_gate: _Map = np.clip(x / np.float32(6) + np.float32(0.5), 0, 1)
        return hard_gate if activation == "hard_sigmoid" else x * hard_gate
    return x
