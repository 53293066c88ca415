"""Exported files are read with suspicion: by other programs, damaged, or saying one thing and being another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from trained_fakes import ARCHITECTURE, SIDE, fake_trained

from mnv3search.errors import ExportError
from mnv3search.export import ExportedModel, export_onnx, load_exported
from mnv3search.export.exported import PREFIX
from mnv3search.graph import network_graph

CONTENT = export_onnx(fake_trained())


def with_metadata(change: Callable[[dict[str, str]], object]) -> bytes:
    model = onnx.load_from_string(CONTENT)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    change(metadata)
    onnx.helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.clear(), "was not exported by mnv3search"),
        (lambda m: m.update({f"{PREFIX}version": "99"}), "has version '99'; this release reads version 1"),
        (lambda m: m.update({f"{PREFIX}classes": "[1, 2, 3]"}), "classes must be 1 to 1,000,000 names"),
        (lambda m: m.update({f"{PREFIX}classes": "[]"}), "classes must be 1 to 1,000,000 names"),
        (lambda m: m.update({f"{PREFIX}classes": '["a", "b"]'}), "other inputs or outputs than its metadata say"),
        (lambda m: m.update({f"{PREFIX}classes": "[" * 100_000}), "nested deeper"),
        (lambda m: m.pop(f"{PREFIX}preprocessing"), "preprocessing is missing"),
        (lambda m: m.update({f"{PREFIX}preprocessing": "[]"}), "must have a resolution"),
        (lambda m: m.update({f"{PREFIX}preprocessing": json.dumps({"resolution": SIDE + 1})}), "other inputs"),
        (lambda m: m.update({f"{PREFIX}input": "uint8"}), "other inputs"),
        (lambda m: m.update({f"{PREFIX}precision": "fp8"}), "'fp8'; it must be fp32 or int8"),
        (lambda m: m.update({f"{PREFIX}architecture": "{}"}), "cannot be used"),
    ],
)
def test_metadata_that_cannot_be_used(change: Callable[[dict[str, str]], object], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        ExportedModel(with_metadata(change))


def test_files_that_are_no_exported_models(tmp_path: Path) -> None:
    for name, content, words in (
        ("damaged.onnx", CONTENT[:500], "cannot load .*damaged.onnx"),
        ("empty.onnx", b"", "cannot load .*empty.onnx"),
        ("text.onnx", b"hello", "cannot load .*text.onnx"),
        ("other.onnx", network_graph(ARCHITECTURE), "was not exported by mnv3search"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match=words):
            load_exported(tmp_path / name)
    with pytest.raises(ExportError, match=r"cannot read .*nothing\.onnx: No such file"):
        load_exported(tmp_path / "nothing.onnx")


def test_a_batch_that_is_neither_one_nor_any_is_refused() -> None:
    model = onnx.load_from_string(CONTENT)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ExportError, match="other inputs or outputs"):
        ExportedModel(bytes(model.SerializeToString()))


def test_one_by_one_and_together_give_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    together = ExportedModel(export_onnx(fake_trained(), batch="dynamic")).logits(pixels)
    np.testing.assert_allclose(ExportedModel(CONTENT).logits(pixels), together, rtol=1e-4, atol=1e-5)
