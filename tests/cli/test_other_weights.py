"""``evaluate NETWORK --weights FILE`` and ``export``: torchvision's weights as they are, without a training of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from image_fakes import make_image_folder
from randomised_weights import randomise
from safetensors.torch import save_file
from trained_fakes import CLASSES, saved_fake

from mnv3search.architecture import dump_architecture
from mnv3search.export import load_exported
from mnv3search.naming import parse_network
from mnv3search.training.data.open_data import open_images
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import load_trained

Invoke = Callable[..., Any]
SIDE = 32
NETWORK = f"mobilenet_v3_small/{SIDE}"
JUDGED = ("evaluate", NETWORK, "--weights", "w.pth", "--data", "data/val")


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    network: torch.nn.Module = torchvision.models.mobilenet_v3_small(num_classes=len(CLASSES))
    randomise(network, torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)), seed=3)
    return network


@pytest.fixture
def place(tmp_path: Path, theirs: torch.nn.Module) -> Path:
    """Images of three classes, and weights that tell three apart."""
    make_image_folder(tmp_path / "data", CLASSES, per_class=6, side=SIDE)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    return tmp_path


def their_confusion(theirs: torch.nn.Module, place: Path) -> list[list[int]]:
    images, found = open_images(place / "data" / "val"), [[0] * len(CLASSES) for _ in CLASSES]
    pixels = [images.source.read(file)[None] for file in images.files]
    prepared = Preprocessing(SIDE)
    batch = torch.cat([torch.from_numpy(prepared.resize_and_crop(one)) for one in pixels]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (prepared.mean, prepared.std))
    with torch.no_grad():
        said = theirs((batch - mean) / std).argmax(1)
    for true, guess in zip(images.labels.tolist(), said.tolist(), strict=True):
        found[true][guess] += 1
    return found


def test_a_network_is_judged_as_torchvision_runs_it(invoke: Invoke, place: Path, theirs: torch.nn.Module) -> None:
    done = invoke(*JUDGED, "--json")
    assert done.code == 0, done.err
    confusion = json.loads(done.out)["confusion"]
    assert confusion == their_confusion(theirs, place)
    assert sum(any(column) for column in zip(*confusion, strict=True)) > 1, "one constant class would prove nothing"


def test_it_predicts_under_the_names_of_the_classes_or_their_numbers(
    invoke: Invoke, place: Path, theirs: torch.nn.Module
) -> None:
    images = sorted((place / "data" / "val").rglob("*.png"))
    (place / "three.json").write_text(dump_architecture(parse_network(NETWORK).with_classes(len(CLASSES))))
    words = (*map(str, images), "--weights", "w.pth", "--top", "1", "--json")
    named = invoke("predict", NETWORK, *words, "--data", "data/val")
    numbered = invoke("predict", "three.json", *words)
    assert named.code == numbered.code == 0, named.err + numbered.err
    names = [one["classes"][0]["name"] for one in json.loads(named.out)["predictions"]]
    confusion = their_confusion(theirs, place)
    assert [names.count(name) for name in CLASSES] == [sum(column) for column in zip(*confusion, strict=True)]
    numbers = [one["classes"][0]["name"] for one in json.loads(numbered.out)["predictions"]]
    assert [CLASSES[int(number)] for number in numbers] == names
    refused = invoke("predict", "run", "x.png", "--data", "data")
    assert refused.code == 2
    assert "add --weights" in refused.err


def test_it_is_exported_under_the_names_of_the_classes(invoke: Invoke, place: Path) -> None:
    done = invoke("export", NETWORK, "--weights", "w.pth", "--data", "data", "--no-timing")
    assert done.code == 0, done.err
    assert load_exported(place / "w.onnx").classes == CLASSES
    exported = invoke("evaluate", "w.onnx", "--data", "data/val", "--json")
    assert json.loads(exported.out)["confusion"] == json.loads(invoke(*JUDGED, "--json").out)["confusion"]


def test_without_images_logits_are_numbered_where_they_are_the_networks_own(invoke: Invoke, place: Path) -> None:
    wanting = invoke("export", NETWORK, "--weights", "w.pth", "--no-timing")
    assert wanting.code == 2
    assert "the weights are for 3 classes, the network for 1000; give --data" in wanting.err
    assert not list(place.glob("*.onnx"))
    plain(place)
    done = invoke("export", "net.json", "--weights", "plain.safetensors", "--no-timing")
    assert done.code == 0, done.err
    assert load_exported(place / "plain.onnx").classes == ("0", "1", "2")
    named = invoke("export", "net.json", "--weights", "run", "--no-timing")
    assert named.code == 0, named.err
    assert load_exported(place / "run.onnx").classes == CLASSES, "those of the RUN that the weights are of"


def test_int8_is_calibrated_on_the_images(invoke: Invoke, place: Path) -> None:
    plain(place)
    asked = ("export", "net.json", "--weights", "plain.safetensors", "--int8", "--calibration-images", "9")
    done = invoke(*asked, "--data", "data", "--no-timing")
    assert done.code == 0, done.err
    assert load_exported(place / "plain_int8.onnx").description.precision == "int8"
    assert "int8 needs images" in invoke(*asked).err


def plain(place: Path) -> None:
    """A small network of three classes as ``net.json``, its weights alone, and a RUN that has them."""
    trained = load_trained(saved_fake(place / "run"))
    (place / "net.json").write_text(dump_architecture(trained.architecture))
    save_file(trained.network.state_dict(), place / "plain.safetensors")


def test_images_of_other_classes_are_refused_in_words(invoke: Invoke, place: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), place / "w.pth")
    for command in (JUDGED, ("export", NETWORK, "--weights", "w.pth", "--data", "data")):
        done = invoke(*command)
        assert done.code == 2
        (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
        assert "the weights are for 1000 classes, the network for 3; give --data with images of the classes" in line
        assert f"mnv3search train {NETWORK} --data DIR --weights w.pth" in line


@pytest.mark.parametrize("command", ["evaluate", "export"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mobilenet_v2", "--weights", "w.pth"), "layers differ"),
        ((NETWORK, "--weights", "gone.pth"), "there are no weights gone.pth"),
        (("mobilenet_v9", "--weights", "w.pth"), "mobilenet_v9"),
        ((NETWORK,), "NETWORK --weights FILE"),
    ],
)
def test_what_does_not_fit_is_said_before_the_images_are_looked_at(
    invoke: Invoke, place: Path, command: str, words: tuple[str, ...], said: str
) -> None:
    done = invoke(command, *words, "--data", "nowhere")
    assert (done.code, said in done.err, "nowhere" in done.err) == (2, True, False), done.err


def test_another_rule_of_widths_is_named(invoke: Invoke, place: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small(width_mult=0.35).state_dict(), place / "w.pth")
    done = invoke("evaluate", "mobilenet_v3_small@0.35/32", "--weights", "w.pth", "--data", "nowhere")
    assert "they are of mobilenet_v3_small@0.35:torchvision/32, another rule of widths" in done.err
