"""Weights files of every usual form are read; what holds code, or no tensors by name, is refused with a remedy."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mnv3search.errors import WeightsError
from mnv3search.network import weights_file
from mnv3search.network.weights_file import load_weights_file

STATE = {"stem.conv.weight": torch.arange(6.0).reshape(2, 3), "stem.conv.bias": torch.ones(2)}


def _assert_is_state(found: dict[str, Any]) -> None:
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("name", ["w.pt", "w.PTH", "w.bin", "w.pth.tar", "w", "w.safetensors", "w.SAFETENSORS"])
def test_files_of_tensors_are_read(tmp_path: Path, name: str) -> None:
    if name.lower().endswith(".safetensors"):
        save_file(STATE, tmp_path / name, {"about": "a test"})
    else:
        torch.save(STATE, tmp_path / name)
    found = load_weights_file(tmp_path / name)
    _assert_is_state(found.tensors)
    assert found.metadata == ({"about": "a test"} if name.lower().endswith(".safetensors") else {})


def test_several_networks_in_one_file_are_named(tmp_path: Path) -> None:
    torch.save({**_prefixed("student."), **_prefixed("teacher.")}, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"two\.pth holds several networks, under student\., teacher\.; save"):
        load_weights_file(tmp_path / "two.pth")


def test_the_folder_of_a_training_stands_for_its_best_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no best\.safetensors"):
        load_weights_file(tmp_path)
    save_file(STATE, tmp_path / "best.safetensors")
    _assert_is_state(load_weights_file(tmp_path).tensors)


def _prefixed(prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "epoch": 3, "arch": "x", "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model": STATE, "epoch": 3},
        {"state_dict": OTHER, "state_dict_ema": STATE},
        {"model": OTHER, "model_ema": {**_prefixed("module."), "n_averaged": torch.tensor(7)}},
        {"checkpoint": 1, "module": {"model": STATE}},
        _prefixed("module."),
        _prefixed("module._orig_mod."),
        {"state_dict": {**_prefixed("model."), "criterion.weight": torch.ones(3)}},
        {"state_dict": {**{f"model.{k}": v for k, v in OTHER.items()}, **_prefixed("model_ema.module.")}},
        {**_prefixed("net."), "net.n_averaged": torch.tensor(7)},
        {**_prefixed("backbone."), "fc.weight": torch.ones(3)},
        {
            "state_dict": STATE,
            "arch": "x",
            "epoch": np.int64(3),
            "metric": np.float64(71.2),
            "top": np.float32(1),
            "args": argparse.Namespace(lr=np.float64(0.1), data=Path("a"), device=torch.device("cpu"), betas=(0.9,)),
        },
    ],
    ids=[
        "timm",
        "torchvision",
        "timm-ema",
        "torchvision-ema",
        "twice",
        "parallel",
        "compiled",
        "lightning",
        "lightning-ema",
        "wrapped",
        "stray",
        "arguments",
    ],
)
def test_checkpoints_are_unwrapped_as_their_trainers_wrap_them(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    _assert_is_state(load_weights_file(tmp_path / "checkpoint.pth").tensors)


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('a weights file was unpickled')",))


class _Blocked:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("false",))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"weight": _Harmful()}, "exec"),
        ({"weight": _Blocked()}, r"posix\.system"),
        ({"model": STATE, "args": argparse.Namespace(hook=_Harmful())}, "exec"),
        ({"model": STATE, "best": np.array([1.0])}, r"numpy.*_reconstruct"),
        (torch.nn.Linear(2, 2), r"Linear"),
    ],
)
def test_a_pickle_that_could_run_code_is_refused_with_what_to_do(tmp_path: Path, content: Any, named: str) -> None:
    torch.save(content, tmp_path / "pickled.pt")
    with pytest.raises(
        WeightsError, match=rf"pickled\.pt holds more than tensors \(.*{named}\), .* save its state dict alone"
    ):
        load_weights_file(tmp_path / "pickled.pt")


def test_a_scripted_module_is_refused_likewise(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to give up its scripts
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(tmp_path / "script.pt"))
    with pytest.raises(WeightsError, match=r"script\.pt holds more than tensors \(a TorchScript module\)"):
        load_weights_file(tmp_path / "script.pt")


@pytest.mark.parametrize("content", [b"no weights", b"", b"PK\x03\x04 and no more", pickle.dumps({"weight": 1.0})])
def test_what_is_no_file_of_torch_is_called_damaged_and_not_dangerous(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"other\.pth is damaged, or no file of torch\.save .* fetch it again"
    ) as error:
        load_weights_file(tmp_path / "other.pth")
    assert "weights_only" not in str(error.value)


def test_files_that_hold_no_tensors_by_name_are_refused_by_their_path(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({}, tmp_path / "nothing.pt")
    torch.save({"weights": {"weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    torch.save({"state_dict": {"weight": 1.0}}, tmp_path / "numbers.pth")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "weights.pkl").write_bytes(b"")
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "missing.pt", tmp_path / "missing.safetensors"]:
        with pytest.raises(WeightsError, match=path.name.replace(".", r"\.")) as error:
            load_weights_file(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"two\nlines": torch.zeros(1)},
        lambda: {"x" * 300: torch.zeros(1)},
        lambda: {"weight": torch.zeros(2, 2).to_sparse()},
        lambda: {"weight": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
        lambda: {"weight": torch.empty(2, device="meta")},
        lambda: {3: torch.zeros(1)},
    ],
    ids=["line break", "long name", "sparse", "quantised", "meta", "number"],
)
def test_odd_names_and_tensors_that_are_no_plain_numbers_are_refused(tmp_path: Path, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to give up its quantised tensors
        torch.save(make(), tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"odd\.pt holds .* not plain tensors by name") as error:
        load_weights_file(tmp_path / "odd.pt")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_too_large_files_and_archives_that_unfold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100_000))
    monkeypatch.setattr(weights_file, "MAX_FILE_BYTES", 50_000)
    _assert_is_state(load_weights_file(tmp_path / "plain.pt").tensors)
    with pytest.raises(WeightsError, match=r"bomb\.pt unfolds to 100000 bytes"):
        load_weights_file(tmp_path / "bomb.pt")
    monkeypatch.setattr(weights_file, "MAX_FILE_BYTES", 100)
    with pytest.raises(WeightsError, match=r"plain\.pt has \d+ bytes"):
        load_weights_file(tmp_path / "plain.pt")


@pytest.fixture(scope="module")
def saved() -> bytes:
    stream = io.BytesIO()
    torch.save(STATE, stream)
    return stream.getvalue()


@settings(max_examples=60)
@given(st.data())
def test_damage_anywhere_is_seen_or_harmless(
    saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(saved)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(saved) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(bytes(damaged))
    try:
        found = load_weights_file(path).tensors
    except WeightsError:
        return
    assert all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items())
