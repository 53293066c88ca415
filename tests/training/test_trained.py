"""A trained network as a file: it comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from trained_fakes import fake_trained
from training_fakes import PREPROCESSING, TINY, same_weights, tiny_network, weights_of

from mnv3search.architecture import to_mapping
from mnv3search.errors import WeightsError
from mnv3search.export.predictor import load_predictor
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import TrainedNetwork, is_trained, load_trained, read_weights, save_trained

CLASSES = ("daisy", "Löwenzahn", "rose / Rose")


def trained(**facts: object) -> TrainedNetwork:
    return TrainedNetwork(TINY, tiny_network().eval(), CLASSES, PREPROCESSING, facts)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    before = trained(val_accuracy=71.25, epoch=3)
    save_trained(tmp_path / "best.safetensors", before)
    for path in (tmp_path, tmp_path / "best.safetensors"):
        after = load_trained(path)
        assert (after.architecture, after.classes, after.preprocessing) == (TINY, CLASSES, PREPROCESSING)
        assert after.facts == {"val_accuracy": 71.25, "epoch": 3}
        assert not after.network.training
        assert same_weights(weights_of(after.network), weights_of(before.network))
        pixels = torch.randn(2, 3, 12, 12)
        torch.testing.assert_close(after.network(pixels), before.network(pixels))


@settings(max_examples=25)
@given(
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    share=st.floats(0.1, 1),
    names=st.lists(st.text(max_size=8), min_size=3, max_size=3, unique=True),
    facts=st.dictionaries(
        st.text(), st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text())
    ),
)
def test_what_travels_with_the_weights(
    tmp_path_factory: pytest.TempPathFactory, mean: Any, share: float, names: list[str], facts: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("trained") / "a.safetensors"
    preprocessing = Preprocessing(12, mean=mean, crop_share=share)
    save_trained(path, TrainedNetwork(TINY, tiny_network(), tuple(names), preprocessing, facts))
    found = load_trained(path)
    assert (found.classes, found.preprocessing, found.facts) == (tuple(names), preprocessing, facts)


def test_equal_networks_are_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        network = tiny_network().to(memory_format=torch.channels_last)
        save_trained(tmp_path / f"{name}.safetensors", replace(trained(epoch=1), network=network))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_its_file_is_told_from_other_weights(tmp_path: Path) -> None:
    save_trained(tmp_path / "mine.safetensors", trained())
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "x.pth").write_bytes(b"")
    found = [is_trained(tmp_path / name) for name in ("mine.safetensors", "other.safetensors", "x.pth")]
    assert found == [True, False, False]


def test_class_names_must_fit() -> None:
    with pytest.raises(WeightsError, match="3 logits, but 2 class names"):
        replace(trained(), classes=("a", "b"))
    with pytest.raises(WeightsError, match="same name"):
        replace(trained(), classes=("a", "b", "a"))


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        save_trained(tmp_path / "best.pth", trained())


def rewritten(path: Path, about: dict[str, Any] | str, change: Any = None) -> Path:
    """A file of good weights with other metadata, or weights that ``change`` touched."""
    tensors = weights_of(tiny_network())
    if change is not None:
        change(tensors)
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, path, metadata={"mnv3search": text})
    return path


GOOD: dict[str, Any] = {
    "format": "mnv3search.trained", "version": 1, "architecture": to_mapping(TINY), "classes": list(CLASSES),
    "preprocessing": PREPROCESSING.to_mapping(), "facts": {},
}  # fmt: skip


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["stem.cnv.weight"] = tensors.pop("stem.conv.weight")


@pytest.mark.parametrize(
    ("about", "change", "words"),
    [
        ("{", None, "not as a trained network"),
        ("[" * 100_000, None, "not as a trained network"),
        ({"format": "mnv3search.architecture"}, None, "not as a trained network"),
        (GOOD | {"version": 2}, None, "version 2"),
        (GOOD | {"classes": ["a", "b"]}, None, "3 logits, but 2 class names"),
        (GOOD | {"classes": 3}, None, "no list of words"),
        (GOOD | {"preprocessing": {"resolution": -1}}, None, "-1"),
        (GOOD | {"preprocessing": None}, None, "resolution"),
        (GOOD | {"preprocessing": [1]}, None, "resolution"),
        (GOOD | {"preprocessing": "224"}, None, "resolution"),
        (GOOD | {"preprocessing": {"resolution": 9, "mean": [1, 2]}}, None, "three numbers"),
        (GOOD | {"preprocessing": {"resolution": 10**200}}, None, "resolution"),
        (GOOD | {"preprocessing": {"resolution": 9, "std": [1, 1, 0]}}, None, "std"),
        (GOOD | {"architecture": None}, None, "architecture"),
        (GOOD | {"architecture": to_mapping(replace(TINY, classes=9))}, None, "head.classifier"),
        (GOOD, rename, "stem.c"),
        (GOOD, lambda t: t["head.classifier.bias"].fill_(math.inf), "NaN or infinity"),
        (GOOD, lambda t: t.update({"stem.conv.weight": t["stem.conv.weight"].half()}), "float16"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, about: Any, change: Any, words: str) -> None:
    path = rewritten(tmp_path / "x.safetensors", about, change)
    with pytest.raises(WeightsError, match=words) as caught:
        load_trained(path)
    assert "x.safetensors" in str(caught.value)


class Bomb:
    """Says on unpickling that code was run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code was run",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pickled_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"checkpoint{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match=r"not a trained network|damaged"):
        load_trained(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_trained(path, trained())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_trained(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no file or folder"):
        load_trained(tmp_path / "gone")
    with pytest.raises(WeightsError, match=r"holds no best\.safetensors"):
        load_trained(tmp_path)


def test_tensors_are_plain(tmp_path: Path) -> None:
    save_trained(tmp_path / "a.safetensors", trained())
    assert load_file(tmp_path / "a.safetensors").keys() == tiny_network().state_dict().keys()


def test_torch_is_imported_before_rust_would_import_it(tmp_path: Path) -> None:
    """An interrupt while Rust imports torch, which takes seconds, aborts the process instead of ending it cleanly."""
    seen = """
import sys
import safetensors
from mnv3search.errors import WeightsError
from mnv3search.training.trained import load_trained

def opened(*_, **__):
    print("torch" in sys.modules)
    raise OSError

safetensors.safe_open = opened
try:
    load_trained(__import__("pathlib").Path(sys.argv[1], "x.safetensors"))
except WeightsError:
    print("refused")
"""
    (tmp_path / "x.safetensors").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", seen, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "refused"]


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_trained(tmp_path / "best.safetensors", fake_trained())
    monkeypatch.chdir(tmp_path)
    assert load_trained(".").classes
    for read in (load_trained, read_weights, load_predictor):
        with pytest.raises(WeightsError, match=r"^(the path of the trained network is empty|there are no weights '')"):
            read("")
