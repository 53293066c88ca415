"""Networks prepared for training: the same parameters, outputs and gradients as the plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mnv3search.families import parse_network
from mnv3search.network.build import MobileNetwork, build_network, prepare_for_training

# among them: SAME padding, 5×5 and 7×7 kernels on maps of 1, 2 and 4 pixels, squeeze-excite with and without biases
NETWORKS = ["mobilenet_v3_small@0.35/32", "mobilenet_v3_large@0.35/48", "mnasnet_a1@0.35/64", "mobilenet_v2@0.35/32"]


def _pair(name: str, dtype: torch.dtype = torch.float64) -> tuple[MobileNetwork, MobileNetwork]:
    """A plain network and a prepared copy; without dropout, whose draws differ."""
    torch.manual_seed(0)
    plain = build_network(parse_network(name)).to(dtype)
    plain.head.dropout.p = 0.0
    return plain, prepare_for_training(copy.deepcopy(plain))


def _images(network: MobileNetwork, count: int = 4) -> Tensor:
    side, like = network.architecture.resolution, network.head.classifier.weight
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=like.dtype)
    return images.to(memory_format=torch.channels_last)


def _step(network: MobileNetwork, images: Tensor) -> list[Tensor | None]:
    loss = functional.cross_entropy(network(images), torch.arange(len(images)))
    loss.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_running_statistics_are_those_of_the_plain_network(name: str) -> None:
    plain, prepared = _pair(name)
    for found, expected in zip(_step(prepared, _images(plain)), _step(plain, _images(plain)), strict=True):
        assert found is not None
        assert expected is not None
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    for mine, theirs in zip(prepared.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_parameters_stay_the_same_objects_under_the_same_names() -> None:
    network = build_network(parse_network("mobilenet_v3_small@0.35/32"))
    before = dict(network.named_parameters())
    names = list(network.state_dict())
    assert prepare_for_training(network) is network
    assert list(network.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in network.named_parameters())


def test_in_evaluation_the_output_is_bit_for_bit_the_plain_networks() -> None:
    plain, prepared = _pair("mobilenet_v3_small@0.35/32", torch.float32)
    images = _images(plain)
    plain.to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(prepared.eval()(images), plain.eval()(images))


def test_steps_repeat_bit_for_bit() -> None:
    _, prepared = _pair("mobilenet_v3_small@0.35/32", torch.float32)
    again = copy.deepcopy(prepared)
    for network in (prepared, again):
        network.head.dropout.p = 0.2
        torch.manual_seed(5)
        _step(network, _images(network))
    pairs = zip(prepared.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)


def test_frozen_features_get_no_gradient_and_the_classifier_does() -> None:
    _, prepared = _pair("mobilenet_v3_small@0.35/32")
    prepared.requires_grad_(False)
    prepared.head.classifier.requires_grad_(True)
    _step(prepared, _images(prepared))
    assert prepared.head.classifier.weight.grad is not None
    assert {name.split(".")[-2] for name, p in prepared.named_parameters() if p.grad is not None} == {"classifier"}


def test_a_layer_frozen_alone_passes_the_gradient_on() -> None:
    plain, prepared = _pair("mobilenet_v3_small@0.35/32")
    for network in (plain, prepared):
        for block in network.blocks:
            block.depthwise.requires_grad_(False)
    for found, expected in zip(_step(prepared, _images(plain)), _step(plain, _images(plain)), strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_autocast_runs_torchs_own_layers() -> None:
    _, prepared = _pair("mobilenet_v3_small@0.35/32", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        _step(prepared, _images(prepared))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in prepared.parameters())
