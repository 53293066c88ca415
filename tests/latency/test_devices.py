from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.families import published
from mnv3search.latency.devices import MAX_BYTES, PROFILES, describe_devices, device_names, load_device
from mnv3search.latency.estimated import EstimatedDevice, RooflineDevice

LARGE = published("mobilenet_v3_large")
PIXEL1 = (files("mnv3search.latency") / "profiles" / "pixel1.json").read_text(encoding="utf-8")
ROOFLINE = {
    "format": "mnv3search.device",
    "version": 1,
    "kind": "roofline",
    "name": "board",
    "gmadds_per_s": 12,
    "gbytes_per_s": 6.5,
    "overhead_ms_per_layer": 0.01,
}


def write(folder: Path, document: object, name: str = "device.json") -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return str(path)


def pixel(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(PIXEL1)
    return document | changes


def refusal(name: str) -> str:
    with pytest.raises(DeviceError) as caught:
        load_device(name)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("name", PROFILES)
def test_embedded_profiles_load_with_their_provenance(name: str) -> None:
    device = load_device(name)
    assert isinstance(device, EstimatedDevice)
    assert (device.name, device.kind) == (name, "estimated")
    assert {"provenance", "campaign_scales", "held_out", "anchors", "coverage", "units"} <= set(device.details)


def test_a_profile_never_quotes_one_error_over_several_families() -> None:
    for name in PROFILES:
        device = load_device(name)
        assert isinstance(device, EstimatedDevice)
        held: Any = device.details["held_out"]
        for scheme in ("leave_one_out", "leave_one_network_out", "leave_one_family_out"):
            keys = [(line["campaign"], line["family"]) for line in held[scheme]]
            assert len(keys) == len(set(keys)) >= 6


def test_names_and_descriptions() -> None:
    assert device_names()[:6] == ("pixel1", "pixel2", "pixel3", "host", "host:onnxruntime", "host:torch")
    described = {d.name: d for d in describe_devices()}
    assert set(device_names()) < set(described)
    assert "V3-Large 51 ms" in described["pixel1"].summary
    assert described["host"].kind == "table"
    assert described["pixel1"].held_out == "mean 1 to 11 % by family"
    assert all("\n" not in d.summary and d.summary for d in described.values())


def test_a_copy_of_a_profile_is_the_same_device(tmp_path: Path) -> None:
    copy = load_device(write(tmp_path, PIXEL1))
    embedded = load_device("pixel1")
    assert copy.latency_ms([LARGE]).tolist() == embedded.latency_ms([LARGE]).tolist()
    assert copy.latency_error_ms([LARGE]).tolist() == embedded.latency_error_ms([LARGE]).tolist()


def test_roofline_file_and_inline_form(tmp_path: Path) -> None:
    assert load_device(write(tmp_path, ROOFLINE)) == RooflineDevice("board", 12.0, 6.5, 0.01)
    unnamed = {k: v for k, v in ROOFLINE.items() if k not in ("name", "overhead_ms_per_layer")}
    assert load_device(write(tmp_path, unnamed, "mine.json")) == RooflineDevice("mine", 12.0, 6.5)
    assert load_device("roofline:12,6.5") == RooflineDevice("roofline:12,6.5", 12.0, 6.5)


@pytest.mark.parametrize("name", ["pixel4", "", "hosts", "roofline", "roofline:", "pixel1.yaml"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown device") as caught:
        load_device(name)
    assert caught.value.kind == "device"


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown runtime.*'onnxruntim'.*did you mean onnxruntime"):
        load_device("host:onnxruntim")


@pytest.mark.parametrize(
    ("text", "name"),
    [("host", "host"), ("host:onnxruntime", "host"), ("host:torch", "host:torch")],
)
def test_a_measured_device_has_its_canonical_text(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path))
    device = load_device(text)
    assert (device.name, device.kind) == (name, "table")


def test_more_threads_than_the_machine_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path))
    with pytest.raises(DeviceError, match="threads is 1024"):
        load_device("host:threads=1024")


def test_the_nearest_name_is_said() -> None:
    with pytest.raises(UnknownNameError, match="did you mean pixel1"):
        load_device("pixl1")


@pytest.mark.parametrize("figures", ["1", "1,2,3", "a,b", ",", "1,"])
def test_malformed_rooflines(figures: str) -> None:
    assert "two numbers" in refusal(f"roofline:{figures}")


@pytest.mark.parametrize("figures", ["0,1", "1,-1", "nan,1", "1,inf"])
def test_rooflines_that_cannot_be(figures: str) -> None:
    assert "finite number above 0" in refusal(f"roofline:{figures}")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    message = refusal(write(tmp_path, PIXEL1[: int(share * len(PIXEL1))]))
    assert "is not a whole JSON file" in message
    assert "device.json" in message


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ("[]", "it holds a list"),
        ("{}", "format is None"),
        (pixel(version=2), "version is 2; this mnv3search reads version 1"),
        (pixel(version=True), "version is True"),
        (pixel(version="1"), "version is '1'"),
        (pixel(format="other"), "format is 'other'"),
        (pixel(kind="magic"), "kind is 'magic'"),
        (pixel(kind=[1]), "kind is [1]"),
        (pixel(name=""), "name is not a short text"),
        (pixel(name="x" * 1000), "name is not a short text"),
        (pixel(name="two\nlines"), "name is not a short text"),
        (pixel(coefficients=None), "coefficients is missing"),
        (pixel(coefficients={}), "fixed is missing"),
        (pixel(error={}), "error.covariance is missing"),
        (pixel(error=pixel()["error"] | {"residual": "wide"}), "residual is 'wide'; it must be a finite number"),
        (pixel(error=pixel()["error"] | {"covariance": [[1.0]]}), "must have 13 rows"),
        (pixel(error=pixel()["error"] | {"covariance": [[None]]}), "error.covariance is None"),
        (pixel(coefficients=pixel()["coefficients"] | {"madds": -1}), "madds is -1.0"),
        (pixel(coefficients=pixel()["coefficients"] | {"madds": 10**400}), "has 401 digits"),
        (pixel(coefficients=pixel()["coefficients"] | {"flops": 1}), "coefficient 'flops' is unknown"),
        (PIXEL1.replace('"residual": ', '"residual": NaN, "was": '), "NaN is no number of JSON"),
        (PIXEL1.replace('"residual": ', '"residual": 1e999, "was": '), "1e999 is too large"),
        (ROOFLINE | {"gmadds_per_s": -1}, "gmadds_per_s is -1.0"),
        (ROOFLINE | {"gbytes_per_s": True}, "gbytes_per_s is True; it must be a finite number"),
        ({k: v for k, v in ROOFLINE.items() if k != "gbytes_per_s"}, "gbytes_per_s is missing"),
        ("[" * 100_000, "is not a whole JSON file"),
    ],
    ids=str,
)
def test_bad_profiles(tmp_path: Path, document: object, word: str) -> None:
    message = refusal(write(tmp_path, document))
    assert word in message
    assert "device.json" in message


def test_sizes_are_bounded(tmp_path: Path) -> None:
    assert "more than the 10,000,000 bytes" in refusal(write(tmp_path, PIXEL1 + " " * MAX_BYTES))


def test_not_text_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "device.json").write_bytes(b"\xff\xfe\x00")
    assert "is not a whole JSON file" in refusal(str(tmp_path / "device.json"))
    assert "No such file" in refusal(str(tmp_path / "none.json"))
    (tmp_path / "folder.json").mkdir()
    assert "folder.json" in refusal(str(tmp_path / "folder.json"))


def test_listing_and_estimating_load_no_heavy_package() -> None:
    code = (
        "import sys; from mnv3search.latency.devices import *; from mnv3search.families import published;"
        "describe_devices(); load_device('pixel1').latency_error_ms([published('mobilenet_v2')]);"
        "print(sorted({'torch', 'scipy', 'onnx', 'onnxruntime', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
