"""Wherever Python users give a path, a text and a ``Path`` mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_fakes import make_image_folder
from trained_fakes import ARCHITECTURE, saved_fake

import mnv3search
from mnv3search import ImagenetPrior, dump_architecture
from mnv3search.export.exporting import ExportSettings

PATHS = pytest.mark.parametrize("kind", [str, Path])
Kind = type[str] | type[Path]
SPACES = Path(__file__).parent.parent / "search_spaces"


@PATHS
def test_networks(tmp_path: Path, kind: Kind) -> None:
    file = tmp_path / "network.json"
    file.write_text(dump_architecture(ARCHITECTURE))
    assert mnv3search.load_architecture(kind(file)) == mnv3search.parse_network(kind(file)) == ARCHITECTURE
    run = saved_fake(tmp_path / "run")
    assert mnv3search.load_trained(kind(run)).architecture == ARCHITECTURE


@PATHS
def test_spaces_and_devices(tmp_path: Path, kind: Kind) -> None:
    assert mnv3search.load_space(kind(SPACES / "mnv3_small.yaml")).name == "mnv3_small"
    with pytest.raises(mnv3search.Mnv3SearchError, match=r"none\.json"):
        mnv3search.load_device(kind(tmp_path / "none.json"))


@PATHS
def test_a_study(tmp_path: Path, kind: Kind) -> None:
    space, device = mnv3search.load_space("mnv3_small"), mnv3search.load_device("pixel1")
    found = mnv3search.search(space, device, ImagenetPrior(), 14.0, trials=20, storage=kind(tmp_path / "study.log"))
    assert (tmp_path / "study.log").is_file()
    again = mnv3search.search(space, device, ImagenetPrior(), 14.0, trials=20, storage=kind(tmp_path / "study.log"))
    assert again.best == found.best


@PATHS
def test_images_training_and_export(tmp_path: Path, kind: Kind) -> None:
    data = mnv3search.open_data(kind(make_image_folder(tmp_path / "images", per_class=4)))
    trained = mnv3search.load_trained(saved_fake(tmp_path / "run"))
    recipe = mnv3search.load_recipe("small_32").for_epochs(1).changed(batch_size=4)
    result = mnv3search.train_network(
        trained.network, data, recipe, preprocessing=trained.preprocessing, folder=kind(tmp_path / "training")
    )
    assert (tmp_path / "training" / "best.safetensors").is_file()
    exported = mnv3search.export_network(result.trained, kind(tmp_path / "network.onnx"), ExportSettings())
    assert exported.path == tmp_path / "network.onnx"
