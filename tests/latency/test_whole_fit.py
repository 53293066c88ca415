"""A device fitted to the times of whole networks: what it must find, and how honest it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, dump_architecture
from mnv3search.blocks import BlockSpec
from mnv3search.errors import DeviceError, MeasurementError, Mnv3SearchError
from mnv3search.families import published
from mnv3search.latency.device_documents import device_document, read_document, write_device
from mnv3search.latency.devices import load_device
from mnv3search.latency.estimated import EstimatedDevice
from mnv3search.latency.fitted.device import FittedDevice, HeldOut, WholeFit, fit_device, fit_whole_networks
from mnv3search.latency.fitted.times import read_network_times
from mnv3search.layers import Unit, units
from mnv3search.space import load_space
from strategies import architectures

SPACE = load_space("ofa_mbv3")
TRUE = load_device("pixel1")


def timed(count: int, noise: float = 0.0, seed: int = 0) -> tuple[list[Architecture], NDArray[np.float64]]:
    networks = list(dict.fromkeys(SPACE.sample(count, seed)))
    exact = TRUE.latency_ms(networks)
    return networks, exact * (1 + noise * np.random.default_rng(seed).standard_normal(len(exact)))


@pytest.fixture(scope="module")
def found() -> WholeFit:
    networks, times = timed(40, 0.02)
    return fit_whole_networks(networks, times.tolist(), "phone")


def test_predicts_networks_that_it_did_not_see(found: WholeFit) -> None:
    asked = SPACE.sample(200, 99)
    error = found.device.latency_ms(asked) / TRUE.latency_ms(asked) - 1
    assert np.mean(np.abs(error)) < 0.02


def test_states_errors_that_cover_networks_held_out(found: WholeFit) -> None:
    summary = found.held_out.summary()
    assert summary["networks"] == len(found.device.networks)
    assert 0.5 <= summary["within_one_deviation"] <= 0.95
    assert summary["within_two_deviations"] >= 0.9


def test_is_surer_of_networks_like_those_fitted(found: WholeFit) -> None:
    near, far = SPACE.sample(1, 5)[0], published("efficientnet_b0", 1.4, 288)
    share = found.device.latency_error_ms([near, far]) / found.device.latency_ms([near, far])
    assert share[1] > 2 * share[0]


def test_finds_a_unit_that_no_count_explains() -> None:
    networks, times = timed(60)
    odd = units(networks[0])[3]
    device = fit_whole_networks(networks, (times + 4.0 * np.array([odd in units(a) for a in networks])).tolist()).device
    assert device.unit_latency_ms([odd])[0] - _true_price(odd) > 2.0


@pytest.mark.parametrize("cheap", ["a third", "squeeze-excite"])
def test_units_that_are_almost_free_lift_no_sum(cheap: str) -> None:
    parts, rng = SPACE.all_units(), np.random.default_rng(0)
    price = dict(zip(parts, map(_true_price, parts), strict=True))
    chosen = rng.permutation(len(parts))[: len(parts) // 3]
    for unit in [parts[i] for i in chosen] if cheap == "a third" else filter(_has_squeeze_excite, parts):
        price[unit] *= rng.uniform(0.01, 0.05)
    networks = list(dict.fromkeys(SPACE.sample(400, 3)))
    exact = np.array([sum(price[u] for u in units(a)) for a in networks])
    noisy = exact * (1 + 0.01 * rng.standard_normal(len(exact)))
    device = fit_whole_networks(networks[:200], noisy[:200].tolist()).device
    assert abs(np.mean(device.latency_ms(networks[:200]) / noisy[:200] - 1)) < 0.002
    error = device.latency_ms(networks[200:]) / exact[200:] - 1
    assert abs(np.mean(error)) < 0.003
    assert np.mean(np.abs(error)) < 0.02
    assert np.all(device.unit_latency_ms(parts) > 0)


def _has_squeeze_excite(unit: Unit) -> bool:
    return isinstance(unit.spec, BlockSpec) and unit.spec.squeeze_excite is not None


def _true_price(unit: Unit) -> float:
    assert isinstance(TRUE, EstimatedDevice)
    return float(TRUE.unit_latency_ms([unit])[0])


def test_is_deterministic(found: WholeFit) -> None:
    again = fit_whole_networks(found.device.networks, found.device.prices.times_ms, "phone")
    assert device_document(again.device) == device_document(found.device)


def test_five_networks_are_enough_and_four_are_not() -> None:
    networks, times = timed(5)
    device = fit_whole_networks(networks, times.tolist()).device
    assert np.all(device.latency_ms(networks) == pytest.approx(times, rel=0.2))
    with pytest.raises(MeasurementError, match="timings has 4 networks; a device is fitted to 5"):
        fit_device(list(zip(networks[:4], times[:4].tolist(), strict=True)))


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_refuses_times_that_are_none(wrong: float) -> None:
    networks, times = timed(6)
    times[2] = wrong
    with pytest.raises(MeasurementError, match=r"item 2: a time of .*; it must be milliseconds, above 0"):
        fit_device(list(zip(networks, times.tolist(), strict=True)))


def test_refuses_repeats_that_disagree() -> None:
    networks, times = timed(6)
    pairs = list(zip(networks, times.tolist(), strict=True))
    with pytest.raises(MeasurementError, match=r"items 0 and 6.*repeats must agree"):
        fit_device([*pairs, (networks[0], 1.2 * times[0])])


def test_held_out_summary_by_hand() -> None:
    held_out = HeldOut(np.array([11.0, 18.0, 30.0]), np.array([2.0, 1.5, 1.0]), np.array([10.0, 20.0, 30.0]))
    assert held_out.relative == pytest.approx([0.1, -0.1, 0.0])
    summary = held_out.summary()
    assert summary["mean_percent"] == pytest.approx(20 / 3, abs=1e-3)
    assert (summary["median_percent"], summary["within_one_deviation"]) == (10.0, 0.667)
    assert summary["within_two_deviations"] == 1.0


def test_points_out_a_row_that_contradicts_the_others(found: WholeFit) -> None:
    assert found.suspects() == []
    networks, times = timed(40, 0.005)
    times[7] *= 1.8
    assert fit_whole_networks(networks, times.tolist()).suspects()[:1] in ([], [7])


def test_round_trip_gives_equal_predictions(found: WholeFit, tmp_path: Path) -> None:
    path = tmp_path / "phone.json"
    write_device(path, found.device)
    back = load_device(str(path))
    assert isinstance(back, FittedDevice)
    assert (back.name, back.kind) == ("phone", "estimated")
    networks = [*SPACE.sample(20, 3), published("mobilenet_v2")]
    assert back.latency_ms(networks).tolist() == found.device.latency_ms(networks).tolist()
    assert back.latency_error_ms(networks).tolist() == found.device.latency_error_ms(networks).tolist()
    assert device_document(back) == device_document(found.device)


@given(architectures())
@settings(max_examples=40)
def test_every_network_has_a_price_above_0_and_an_error(network: Architecture) -> None:
    device = _small_device()
    assert np.all(device.unit_latency_ms(units(network)) > 0)
    latency, error = device.latency_ms([network])[0], device.latency_error_ms([network])[0]
    assert latency == pytest.approx(device.fixed_ms + device.unit_latency_ms(units(network)).sum(), rel=1e-12)
    assert 0 < error < math.inf


_SMALL: list[FittedDevice] = []


def _small_device() -> FittedDevice:
    if not _SMALL:
        networks, times = timed(8, 0.02)
        _SMALL.append(fit_whole_networks(networks, times.tolist()).device)
    return _SMALL[0]


@given(st.lists(st.floats(0.1, 1e5), min_size=5, max_size=5))
@settings(max_examples=6)
def test_any_times_give_a_device(times: list[float]) -> None:
    networks, _ = timed(len(times))
    device = fit_whole_networks(networks, times).device
    assert np.all(device.latency_ms(networks) > 0)
    assert np.all(np.isfinite(device.latency_error_ms(networks)))


def test_a_device_whose_every_network_takes_the_same() -> None:
    networks, _ = timed(30)
    device = fit_whole_networks(networks, [50.0] * 30).device
    assert device.latency_ms(networks) == pytest.approx(50.0, rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error_scale": 0}, "error_scale is 0"),
        ({"error_scale": True}, "it must be a finite number"),
        ({"error_scale": None}, "it must be a finite number"),
        ({"networks": []}, "has 0 networks"),
        ({"networks": {}}, "must be a list"),
        ({"networks": [1, 2, 3, 4, 5]}, "1 is not an object"),
        ({"scales": {"smooth": 1}}, "scales must have the figures own, kind, counts, noise"),
        ({"scales": {"own": 0.1, "kind": 0.1, "counts": 1, "noise": 0.0}}, "finite and above 0"),
        ({"scales": {"own": 1e300, "kind": 0.1, "counts": 1, "noise": 0.1}}, "finite and above 0"),
        ({"scale_prices": {}}, "an earlier mnv3search made it.*mnv3search device fit"),
        ({"details": 3}, "not an object"),
    ],
)
def test_damaged_documents_are_refused(found: WholeFit, change: dict[str, object], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        read_document(device_document(found.device) | change, "x")


def test_missing_parts_are_named(found: WholeFit) -> None:
    document = device_document(found.device)
    for key in ("error_scale", "networks", "scales"):
        with pytest.raises(DeviceError, match=f"{key} is missing"):
            read_document({k: v for k, v in document.items() if k != key}, "x")


def test_a_device_never_overwrites_another_file(found: WholeFit, tmp_path: Path) -> None:
    other = tmp_path / "mine.json"
    other.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(DeviceError, match="no device's file"):
        write_device(other, found.device)
    with pytest.raises(DeviceError, match=r"must end in \.json"):
        write_device(tmp_path / "phone", found.device)
    write_device(tmp_path / "phone.json", found.device)
    write_device(tmp_path / "phone.json", found.device)
    assert other.read_text(encoding="utf-8") == '{"a": 1}'


def test_timings_in_memory_give_the_device_of_their_file(tmp_path: Path) -> None:
    networks, times = timed(12, 0.01)
    pairs = list(zip(networks, times, strict=True))  # numpy scalars
    device = fit_device(pairs, "phone")
    assert device_document(device) == device_document(fit_whole_networks(networks, times.tolist(), "phone").device)
    names = ["mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1", "mobilenet_v3_large@0.75"]
    by_name = fit_device(zip(names, (51.2, 15.8, 64, 55, 39.8), strict=True))
    read = read_network_times(written(tmp_path, HEADER + ROWS))
    assert by_name.prices.times_ms == read.times_ms
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"note": "x", "time_us": [51200, 15800, 64000, 55000, 39800], "architecture": names})
    assert fit_device(table).prices.times_ms == pytest.approx(read.times_ms)
    with pytest.warns(UserWarning, match="items 0 and 12 of timings are of one network"):
        assert len(fit_device([*pairs, pairs[0]]).networks) == 12


@pytest.mark.parametrize(
    ("timings", "message"),
    [
        ("times.csv", "timings must be pairs of a network"),
        ({"mobilenet_v2": 3.0}, "timings must be pairs of a network"),
        (None, "timings must be pairs of a network"),
        ([3.0], "item 0 is 3.0; it must be a pair"),
        ([("mobilenet_v2", 3.0, 1)], "item 0 is .* it must be a pair"),
        ([("mobilnet_v2", 3.0)], "item 0: unknown network 'mobilnet_v2'; did you mean"),
        ([(7, 3.0)], "item 0 names 7; give an Architecture"),
        ([("mobilenet_v2", "3 ms")], "item 0: a time of '3 ms'; it must be milliseconds"),
        ([("mobilenet_v2", math.nan)], "item 0: a time of nan"),
        ([("mobilenet_v2", True)], "item 0: a time of True"),
        ([("mobilenet_v2", 3.0)], "timings has 1 networks; a device is fitted to 5"),
    ],
)
def test_timings_that_are_none_are_refused_in_words(timings: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        fit_device(timings)


HEADER = "architecture,ms\n"
ROWS = (
    "mobilenet_v3_large,51.2\nmobilenet_v3_small,15.8\nmobilenet_v2,64\nmnasnet_a1,55\nmobilenet_v3_large@0.75,39.8\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "times.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_names_and_files_beside_the_csv(tmp_path: Path) -> None:
    network = published("mobilenet_v2", 0.5, 96)
    (tmp_path / "own.json").write_text(dump_architecture(network), encoding="utf-8")
    read = read_network_times(written(tmp_path, HEADER + ROWS + "own.json,4.5\n"))
    assert read.networks[0] == published("mobilenet_v3_large")
    assert read.networks[-1] == network
    assert read.times_ms == (51.2, 15.8, 64.0, 55.0, 39.8, 4.5)
    assert read.notices == ()


@pytest.mark.parametrize(
    ("column", "factor"), [("us", 1e3), ("s", 1e-3), ("latency_s", 1e-3), ("time_us", 1e3), (" MS ", 1)]
)
def test_converts_units_by_the_columns_name(tmp_path: Path, column: str, factor: float) -> None:
    rows = [line.split(",") for line in ROWS.split()]
    text = f"note,{column},Architecture\n" + "".join(f"x,{float(ms) * factor},{name}\n" for name, ms in rows)
    assert read_network_times(written(tmp_path, text)).times_ms == pytest.approx((51.2, 15.8, 64.0, 55.0, 39.8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with nothing"),
        ("architecture\n" + ROWS, "no column of times"),
        ("network,ms\n" + ROWS, "no such column of names"),
        ("architecture;ms\n" + ROWS, "separate them by commas"),
        ("architecture,minutes\n" + ROWS, "no column of times"),
        ("architecture,ms,us\n", "one column of times"),
        ("architecture,ms,ms\n", "one column of times"),
        (HEADER + ROWS.replace("64", "0"), r"line 4: time '0' must be finite, above 0"),
        (HEADER + ROWS.replace("64", "-3"), "line 4: time '-3' must be"),
        (HEADER + ROWS.replace("64", "nan"), "line 4: time 'nan' must be"),
        (HEADER + ROWS.replace("64", "inf"), "line 4: time 'inf' must be"),
        (HEADER + ROWS.replace("64", "fast"), "line 4: time 'fast' is no number"),
        (HEADER + ROWS + "mobilenet_v3_large", "line 7 has 1 columns"),
        (HEADER + ROWS + ",3\n", "line 7 names nothing"),
        (HEADER + ROWS.replace("mobilenet_v2", "mobilnet_v2"), "line 4: unknown network 'mobilnet_v2'; did you mean"),
        (HEADER + ROWS.replace("mobilenet_v2", "gone.json"), r"line 4: cannot read .*gone\.json"),
        (HEADER + ROWS + "mobilenet_v2,90\n", "lines 4 and 7: mobilenet_v2 takes 64 ms and 90 ms"),
        (HEADER + "mobilenet_v2,64\n" * 9, "has 1 networks; a device is fitted to 5"),
        (HEADER + ROWS.replace("64", "64000"), "line 4: mobilenet_v2 at 64000 ms is over 300 times off"),
        (HEADER + ROWS + '"mobilenet_v1,3\n', "is no CSV"),
        pytest.param(
            ",".join(["architecture", "ms", *map(str, range(200_000))]) + "\n",
            "has 200002 columns; .* at most 1000",
            id="many columns",
        ),
        pytest.param(HEADER + "mobilenet_v2," * 300_000 + "\n", "line 2 has 300001 columns", id="a long row"),
        (HEADER + "a\x00b,3\n", r"line 2: 'a\\x00b' is no name|line 2: a\\x00b is no name"),
        ("architecture,ms\x1b[2J\n", r"begins with architecture, ms\\x1b\[2j: it has no column of times"),
        pytest.param(HEADER + "x" * 100_000 + ",3\n", "line 2: x{40} is no name", id="a long name"),
        pytest.param(HEADER + '"' + "x" * 200_000 + '",3\n', "is no CSV", id="a long cell"),
        (HEADER + ROWS.replace("64", "6_4"), "line 4: time '6_4' is no number"),
        (HEADER + ROWS.replace("64", "６４"), "line 4: time '６４' is no number"),
        pytest.param(
            HEADER + "".join(f"mobilenet_v2/{n},64\n" for n in range(32, 1100)),
            "more than 1000 networks|over 300 times",
            id="many networks",
        ),
        pytest.param(
            HEADER + "mobilenet_v2,64\nmobilenet_v2,90\n" * 50,
            "lines 2, 3, 4, 5, 6 and 95 more",
            id="many repeats",
        ),
    ],
)
def test_refuses_bad_files_and_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        read_network_times(written(tmp_path, text))


def test_repeats_that_agree_are_averaged_with_a_notice(tmp_path: Path) -> None:
    read = read_network_times(written(tmp_path, HEADER + ROWS + "mobilenet_v2,66\nmobilenet_v2@1.0,65\n"))
    assert read.times_ms[2] == 65.0
    assert any("lines 4 and 7" in notice for notice in read.notices)


def test_notices_a_cut_line_and_of_times_that_no_device_has(tmp_path: Path) -> None:
    assert "ends within a line" in read_network_times(written(tmp_path, (HEADER + ROWS).strip())).notices[0]
    in_us = HEADER + "".join(
        f"{row}000\n" for row in ROWS.replace("51.2", "51").replace("15.8", "15").replace("39.8", "40").split()
    )
    assert "which no usual device does" in " ".join(read_network_times(written(tmp_path, in_us)).notices)


def test_unreadable_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot read the times"):
        read_network_times(tmp_path)
    with pytest.raises(MeasurementError, match="cannot read the times"):
        read_network_times(tmp_path / "none.csv")
    (tmp_path / "times.csv").write_bytes(b"architecture,ms\n\xff\xfe,3\n")
    with pytest.raises(MeasurementError, match="not UTF-8"):
        read_network_times(tmp_path / "times.csv")
    with pytest.raises(MeasurementError, match="more than the 5,000,000 bytes"):
        read_network_times(written(tmp_path, HEADER + "x" * 5_000_001))


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "times.csv"
        path.write_bytes(f"architecture,ms\n{text}".encode("utf-8", "surrogatepass"))
        with pytest.raises(Mnv3SearchError):
            read_network_times(path)
