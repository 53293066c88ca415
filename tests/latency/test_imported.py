"""A device of layers timed elsewhere: what it says, and which times it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layer_folders import small_plan, small_units, true_ms, write_times

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.families import published
from mnv3search.latency.device_documents import device_document, read_document, write_device
from mnv3search.latency.devices import load_device
from mnv3search.latency.layer_files.exported import LayerFile, LayerFolder, write_layers
from mnv3search.latency.layer_files.imported import UNCALIBRATED_ERROR, Imported, ImportedDevice, import_layers
from mnv3search.latency.measured.calibration import assembled_networks
from mnv3search.layers import units

PLAN = small_plan(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("export") / "layers"
    write_layers(PLAN, found)
    return found


@pytest.fixture(scope="module")
def found(folder: Path) -> Imported:
    return import_layers(folder, write_times(folder.parent / "times.csv", PLAN), "board")


def others() -> list[Architecture]:
    """Networks of the same units that were not timed whole."""
    timed = {entry.subject for entry in PLAN.networks}
    return [a for a in assembled_networks(small_units(), 30, seed=7) if a not in timed]


def is_layer(entry: LayerFile) -> bool:
    return not entry.is_network


def test_is_calibrated_to_the_whole_networks(found: Imported) -> None:
    assert (found.missing, found.notices) == (0, ())
    assert (len(found.device.layers_ms), len(found.device.whole)) == (len(PLAN.layers), 8)
    assert found.device.calibration is not None
    assert found.device.kind == "table"
    true = load_device("pixel1").latency_ms(others())
    assert found.device.latency_ms(others()) == pytest.approx(true, rel=0.02)
    assert np.all(found.device.latency_error_ms(others()) < 0.1 * true)


def test_without_whole_networks_the_sum_is_plain_and_the_error_wide(folder: Path, tmp_path: Path) -> None:
    bare = import_layers(folder, write_times(tmp_path / "t.csv", PLAN, is_layer), "board")
    assert bare.device.calibration is None
    assert "uncalibrated: 0 whole networks" in bare.notices[0]
    network = others()[0]
    by_unit = {entry.subject: true_ms(entry) for entry in PLAN.layers}
    assert bare.device.latency_ms([network])[0] == pytest.approx(sum(by_unit[u] for u in units(network)), rel=1e-4)
    share = bare.device.latency_error_ms([network]) / bare.device.latency_ms([network])
    assert share[0] == pytest.approx(UNCALIBRATED_ERROR)


def test_layers_that_were_not_timed_are_priced_like_those_near(folder: Path, tmp_path: Path, found: Imported) -> None:
    gone = PLAN.layers[5]
    times = write_times(tmp_path / "t.csv", PLAN, lambda e: e.file != gone.file)
    with pytest.raises(MeasurementError, match=rf"lacks 1 of {len(PLAN.layers)} layers: {gone.file}"):
        import_layers(folder, times, "board")
    partial = import_layers(folder, times, "board", partial=True)
    assert partial.missing == 1
    assert "priced like those near them" in " ".join(partial.notices)
    using = [a for a in others() if gone.subject in units(a)][:5]
    assert partial.device.latency_ms(using) == pytest.approx(found.device.latency_ms(using), rel=0.15)
    assert np.all(partial.device.latency_error_ms(using) > found.device.latency_error_ms(using))


def test_networks_of_other_layers_have_a_price_and_a_wider_error(found: Imported) -> None:
    other, own = published("mobilenet_v2", 0.5, 96), others()[0]
    share = found.device.latency_error_ms([own, other]) / found.device.latency_ms([own, other])
    assert share[1] > 2 * share[0]


def test_minima_and_units_and_folders_in_names(folder: Path, tmp_path: Path, found: Imported) -> None:
    text = "name,us,minimum_us"
    times = write_times(tmp_path / "t.csv", PLAN, header=text, form="layers\\{file},{us:.4f},{us:.4f}")
    again = import_layers(folder, times, "board").device
    assert again.latency_ms(others()) == pytest.approx(found.device.latency_ms(others()), rel=1e-3)


def test_round_trip_gives_equal_predictions(found: Imported, tmp_path: Path) -> None:
    write_device(tmp_path / "board.json", found.device)
    back = load_device(str(tmp_path / "board.json"))
    assert isinstance(back, ImportedDevice)
    networks = [*others(), published("mobilenet_v3_small")]
    assert back.latency_ms(networks).tolist() == found.device.latency_ms(networks).tolist()
    assert back.latency_error_ms(networks).tolist() == found.device.latency_error_ms(networks).tolist()
    assert device_document(back) == device_document(found.device)


def test_repeats_that_agree_are_averaged_with_a_notice(folder: Path, tmp_path: Path) -> None:
    times = write_times(tmp_path / "t.csv", PLAN)
    first = PLAN.layers[0]
    times.write_text(times.read_text(encoding="utf-8") + f"{first.file},{true_ms(first) * 1.05}\n", encoding="utf-8")
    repeated = import_layers(folder, times, "board")
    assert repeated.device.layers_ms[first.key] == pytest.approx(1.025 * true_ms(first), rel=1e-4)
    assert "their mean is taken" in repeated.notices[0]
    times.write_text(times.read_text(encoding="utf-8") + f"{first.file},{true_ms(first) * 3}\n", encoding="utf-8")
    with pytest.raises(MeasurementError, match="repeats must agree"):
        import_layers(folder, times, "board")


@pytest.mark.parametrize("plan", [PLAN])
def test_refuses_times_of_mixed_units(folder: Path, tmp_path: Path, plan: LayerFolder) -> None:
    wrong = {entry.file: 1000.0 for entry in plan.networks[:2]}
    with pytest.raises(MeasurementError, match="over 300 times off what its work suggests"):
        import_layers(folder, write_times(tmp_path / "t.csv", plan, change=wrong), "board")


@pytest.mark.parametrize("wrong", [-1.0, 0.0, math.nan, math.inf])
def test_refuses_times_that_are_none(folder: Path, tmp_path: Path, wrong: float) -> None:
    times = write_times(tmp_path / "t.csv", PLAN, change={PLAN.files[3].file: wrong})
    with pytest.raises(MeasurementError, match=r"line 5: time .* must be finite, above 0"):
        import_layers(folder, times, "board")


def test_refuses_files_that_are_unknown_changed_or_cut(folder: Path, tmp_path: Path) -> None:
    times = write_times(tmp_path / "t.csv", PLAN)
    whole = times.read_text(encoding="utf-8")
    times.write_text(whole + "resnet50.onnx,3\n", encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"1 names that are no exported files: resnet50\.onnx \(line"):
        import_layers(folder, times, "board")
    times.write_text(whole[: whole.rindex(",")], encoding="utf-8")
    with pytest.raises(MeasurementError, match="has 1 columns where the first line has 2"):
        import_layers(folder, times, "board")
    copy = tmp_path / "layers"
    write_layers(PLAN, copy)
    (copy / PLAN.files[2].file).write_bytes(b"other")
    with pytest.raises(MeasurementError, match=rf"1 files of .* are not as they were exported: {PLAN.files[2].file}"):
        import_layers(copy, write_times(times, PLAN), "board")
    (copy / PLAN.files[2].file).unlink()
    assert "could not be checked" in " ".join(import_layers(copy, times, "board").notices)


def test_too_few_layers(folder: Path, tmp_path: Path) -> None:
    few = {entry.file for entry in PLAN.layers[:4]}
    times = write_times(tmp_path / "t.csv", PLAN, lambda e: e.file in few)
    with pytest.raises(MeasurementError, match="has 4 layers; at least 5"):
        import_layers(folder, times, "board", partial=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": {}}, "near names layers without times"),
        ({"layers": []}, "not an object"),
        ({"near": ["x"]}, "near names layers without times"),
        ({"near": 3}, "must be a list"),
        ({"near_error_scale": -1}, "times are finite and above 0"),
        ({"networks": [{"ms": 1}]}, "architecture is missing"),
    ],
)
def test_damaged_documents_are_refused(found: Imported, change: dict[str, object], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        read_document(device_document(found.device) | change, "x")


def test_times_above_all_bounds_and_whole_networks_without_layers_are_refused(found: Imported) -> None:
    device = found.device
    with pytest.raises(DeviceError, match="times are finite and above 0"):
        replace(device, layers_ms={**device.layers_ms, PLAN.layers[0].key: math.nan})
    fewer = {key: ms for key, ms in device.layers_ms.items() if key != PLAN.layers[0].key}
    with pytest.raises(DeviceError, match="1 layers that were not timed"):
        replace(device, layers_ms=fewer)
