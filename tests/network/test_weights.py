"""Weights of torchvision and timm give their logits in our networks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from randomised_weights import randomise

from mnv3search.architecture import Architecture
from mnv3search.errors import WeightsError
from mnv3search.families import parse_network
from mnv3search.network.build import build_network
from mnv3search.network.weights import StateDict, check_pairs, copy_pairs, library_of, paired_layers

TORCHVISION = [
    ("mobilenet_v2", {}, "mobilenet_v2"),
    ("mobilenet_v2", {"width_mult": 0.5}, "mobilenet_v2@0.5"),
    ("mobilenet_v3_large", {}, "mobilenet_v3_large"),
    ("mobilenet_v3_small", {}, "mobilenet_v3_small"),
    ("mobilenet_v3_large", {"reduced_tail": True}, "mobilenet_v3_large_reduced_tail"),
    ("mobilenet_v3_small", {"reduced_tail": True}, "mobilenet_v3_small_reduced_tail"),
    ("mobilenet_v3_large", {"width_mult": 0.75}, "mobilenet_v3_large@0.75:torchvision"),
    ("mnasnet1_0", {}, "mnasnet_b1"),
]
OWN: dict[str, Any] = {"norm_eps": 1e-5, "norm_momentum": 0.1}
PORTED: dict[str, Any] = {"norm_eps": 1e-3, "padding": "same"}
TIMM = [
    ("mobilenetv1_100", "mobilenet_v1", OWN),
    ("mobilenetv2_100", "mobilenet_v2", OWN),
    ("mobilenetv3_large_100", "mobilenet_v3_large", OWN),
    ("mobilenetv3_large_075", "mobilenet_v3_large@0.75", OWN),
    ("mobilenetv3_small_100", "mobilenet_v3_small", OWN),
    ("tf_mobilenetv3_large_100", "mobilenet_v3_large", PORTED),
    ("tf_mobilenetv3_small_100", "mobilenet_v3_small", PORTED),
    ("tf_mobilenetv3_large_minimal_100", "mobilenet_v3_large_minimalistic", PORTED),
    ("tf_mobilenetv3_small_minimal_100", "mobilenet_v3_small_minimalistic", PORTED),
    ("mnasnet_100", "mnasnet_b1", OWN),
    ("semnasnet_100", "mnasnet_a1", OWN),
    ("mnasnet_small", "mnasnet_small", OWN),
    ("fbnetc_100", "fbnet_c", OWN),
    ("spnasnet_100", "single_path_nas", OWN),
    ("efficientnet_lite0", "efficientnet_lite0", OWN),
    ("tf_efficientnet_lite0", "efficientnet_lite0", PORTED),
    ("efficientnet_b0", "efficientnet_b0", OWN),
]
SIDE = 75


def _load(network: Any, state: StateDict) -> None:
    pairs = paired_layers(network, state, library_of(state))
    check_pairs(pairs)
    copy_pairs(pairs)


def _norm_constants(network: Any) -> set[tuple[float, float]]:
    return {
        (m.eps, round(m.momentum or 0, 9))
        for m in network.modules()
        if isinstance(m, torch.nn.modules.batchnorm._NormBase)
    }


def _assert_same_logits(theirs: Any, architecture: Architecture) -> None:
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    randomise(theirs.to_empty(device="cpu"), images, seed=2)
    ours = build_network(architecture.with_resolution(SIDE)).eval()
    _load(ours, theirs.state_dict())
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert 0.1 < float(expected.std()) < 10
    assert float((expected[0] - expected[1]).std()) > 0.01, "the logits must depend on the image"
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize(("name", "options", "network"), TORCHVISION)
def test_torchvision_weights_give_torchvision_logits(name: str, options: dict[str, Any], network: str) -> None:
    with torch.device("meta"):  # its numbers are drawn later
        theirs = getattr(torchvision.models, name)(weights=None, **options)
    architecture = parse_network(network)
    assert _norm_constants(theirs) == _norm_constants(build_network(architecture))
    _assert_same_logits(theirs, architecture)


def test_torchvision_efficientnet_weights_give_its_logits() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.efficientnet_b0(weights=None)
    _assert_same_logits(theirs, replace(parse_network("efficientnet_b0"), **OWN))


@pytest.mark.parametrize(("name", "network", "changes"), TIMM)
def test_timm_weights_give_timm_logits(name: str, network: str, changes: dict[str, Any]) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False)
    _assert_same_logits(theirs, replace(parse_network(network), **changes))


def test_a_wrong_padding_would_be_seen() -> None:
    """The comparison is sharp: TensorFlow's padding in place of torch's moves the logits by far more than 1e-5."""
    theirs = timm.create_model("mobilenetv3_small_100", pretrained=False)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    randomise(theirs, images, seed=2)
    ours = build_network(replace(parse_network("mobilenet_v3_small"), **OWN, padding="same")).eval()
    _load(ours, theirs.state_dict())
    with torch.inference_mode():
        assert float((ours(images) - theirs(images)).abs().max() / theirs(images).abs().max()) > 1e-3


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_order_of_the_keys_does_not_matter(library: str) -> None:
    """Safetensors sorts its keys, so the order in which layers run must come from their names."""
    if library == "timm":
        state = timm.create_model("semnasnet_100", pretrained=False).state_dict()
        architecture = parse_network("mnasnet_a1")
    else:
        state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
        architecture = parse_network("mobilenet_v3_small")
    ordered, shuffled = build_network(architecture), build_network(architecture)
    _load(ordered, state)
    _load(shuffled, dict(sorted(state.items())))
    expected = shuffled.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ordered.state_dict().items())


@pytest.fixture
def small() -> Any:
    return build_network(parse_network("mobilenet_v3_small"))


@pytest.fixture(scope="module")
def small_state() -> dict[str, Any]:
    state: dict[str, Any] = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    return state


def test_weights_of_another_network_list_the_layers_that_differ_and_count_them(small_state: dict[str, Any]) -> None:
    network = build_network(parse_network("mobilenet_v3_large"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        _load(network, small_state)
    said = re.fullmatch(
        r"(\d+) of (\d+) layers differ: (?:[^;]+; ){5}and (\d+) more: take the weights of this very architecture",
        str(error.value),
    )
    assert said
    differing, layers, more = map(int, said.groups())
    assert differing == more + 5
    assert layers >= 88, "all of the larger network's are among them"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_two_layers_of_other_widths_are_both_named_with_both_shapes(small: Any, small_state: dict[str, Any]) -> None:
    other = {
        **small_state, "features.0.0.weight": torch.zeros(8, 3, 3, 3), "classifier.0.weight": torch.zeros(1024, 600),
    }  # fmt: skip
    with pytest.raises(WeightsError) as error:
        _load(small, other)
    assert str(error.value) == (
        "2 of 88 layers differ: stem.conv.weight is (16, 3, 3, 3), in features.0.0 of the weights (8, 3, 3, 3); "
        "head.hidden.weight is (1024, 576, 1, 1), in classifier.0 of the weights (1024, 600, 1, 1): "
        "take the weights of this very architecture"
    )


def test_missing_and_surplus_layers_are_named(small: Any, small_state: dict[str, Any]) -> None:
    short = {name: tensor for name, tensor in small_state.items() if not name.startswith("classifier.3")}
    with pytest.raises(WeightsError, match=r"head\.classifier\.weight \(1000, 1024, 1, 1\) has no layer in"):
        _load(small, short)
    surplus = {**small_state, "classifier.4.weight": torch.zeros(2, 1000), "classifier.4.bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"classifier\.4\.weight \(2, 1000, 1, 1\) of the weights has no layer"):
        _load(small, surplus)


def test_a_block_that_is_missing_is_named_and_nothing_else(small: Any, small_state: dict[str, Any]) -> None:
    """Layers are aligned: what follows the gap is still matched with its own."""
    short = {name: tensor for name, tensor in small_state.items() if not name.startswith("features.5.")}
    with pytest.raises(WeightsError) as error:
        _load(small, short)
    assert str(error.value).startswith("8 of 88 layers differ: ")
    assert "blocks.4." in str(error.value)
    assert "head" not in str(error.value)


def test_a_bias_on_one_side_alone_is_refused(small: Any, small_state: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"stem\.conv\.bias is nothing, in features\.0\.0 of the weights \(16,\)"):
        _load(small, {**small_state, "features.0.0.bias": torch.zeros(16)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(small: Any, small_state: dict[str, Any], value: float) -> None:
    broken = {**small_state, "features.0.1.running_var": torch.full((16,), value)}
    with pytest.raises(WeightsError, match=r"features\.0\.1\.running_var of the weights holds NaN or infinity"):
        _load(small, broken)


def test_whole_numbers_are_no_weights(small: Any, small_state: dict[str, Any]) -> None:
    quantised = {**small_state, "features.0.0.weight": torch.zeros(16, 3, 3, 3, dtype=torch.int8)}
    with pytest.raises(WeightsError, match=r"features\.0\.0\.weight of the weights is torch\.int8"):
        _load(small, quantised)


def test_a_norm_of_a_single_number_is_refused(small: Any, small_state: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"stem\.norm\.weight is \(16,\), in features\.0\.1 of the weights \(\)"):
        _load(small, {**small_state, "features.0.1.weight": torch.tensor(1.0)})


@pytest.mark.parametrize(
    "names",
    [[], ["weight"], ["blocks.x.y.z.weight", "blocks.1.weight"], ["blocks.0.0.se.fc.weight", "features..weight"]],
)
def test_any_nonsense_is_a_weights_error(names: list[str], small: Any) -> None:
    with pytest.raises(WeightsError):
        _load(small, {name: torch.zeros(3) for name in names})


def test_a_file_of_very_many_layers_is_refused_at_once(small: Any) -> None:
    many = {f"features.{index}.0.weight": torch.zeros(1, 1, 1, 1) for index in range(20_000)}
    with pytest.raises(WeightsError, match="20000 of 20000 layers differ"):
        _load(small, many)
