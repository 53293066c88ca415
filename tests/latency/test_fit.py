from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from benchmarks import _pixel_fit as campaigns
from benchmarks._pixel_fit import (
    FITTED_DEVICES,
    PARAMETERS,
    DifferenceRow,
    FitOptions,
    HeldOut,
    LatencyRow,
    calibrate,
    coefficient_floors,
    design,
    difference_rows,
    error_table,
    family_out,
    fit,
    fit_device,
    held_out,
    latency_rows,
    network_out,
    one_out,
)
from mnv3search.families import parse_network, published

GOALS = {("v5", "mobilenet_v3"): 3.2, ("v1", "mobilenet_v3"): 3.7, ("zoo", "mobilenet_v2"): 4.5}
WIDE = FitOptions(dict.fromkeys(PARAMETERS, 0.0), dict.fromkeys(PARAMETERS, 100.0))
TRUE = np.array([1.0, 0.2, 0.1, 0.3, 0.4, 0.5, 1.0, 0.3, 0.05, 3.0, 0.2, 0.7, 0.02])
SCALE = {"v5": 1.0, "other": 1.3}


def synthetic(spoiled: float = 1.0) -> list[LatencyRow]:
    rows: list[LatencyRow] = []
    names = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1", "mnasnet_b1", "mobilenet_v1")
    for number, name in enumerate(names):
        for width in ("", "@0.5", "@1.3"):
            for size in ("", "/128", "/160"):
                architecture = parse_network(name + width + size)
                campaign = ("v5", "other")[(number + len(rows)) % 2]
                latency = SCALE[campaign] * float((design([architecture]) @ TRUE)[0])
                rows.append(LatencyRow(name + width + size, architecture, campaign, name, latency))
    rows[7] = replace(rows[7], latency_ms=spoiled * rows[7].latency_ms)
    return rows


@pytest.mark.parametrize("spoiled", [1.0, 1.5])
def test_recovers_latencies_and_scales_even_beside_a_spoiled_row(spoiled: float) -> None:
    found = fit(synthetic(spoiled), [], WIDE)
    assert found.scales["other"] == pytest.approx(1.3, rel=5e-3)
    truth = np.array([r.latency_ms for r in synthetic()])
    assert found.predict(synthetic()) == pytest.approx(truth, rel=0.02)
    assert found.scales["v5"] == 1.0


def test_coefficients_are_never_negative_nor_below_their_floors() -> None:
    for device in FITTED_DEVICES:
        found = fit_device(device)
        assert np.all(found.coefficients >= 0)
        floors = coefficient_floors(difference_rows(device))
        assert np.all(found.coefficients >= floors)
        squeeze = PARAMETERS.index("squeeze_excite_elements")
        assert floors[squeeze] > 0.5


def test_floor_of_h_swish_by_hand() -> None:
    relu = LatencyRow("relu", published("mobilenet_v3_large_relu"), "v5", "mobilenet_v3", 50.5)
    deep = LatencyRow("deep", published("mobilenet_v3_large_hswish112"), "v5", "mobilenet_v3", 51.0)
    # stem 112²·16, blocks 10 and 11: (480 + 672)·14²·2, block 12: 672·(14² + 7²), blocks 13 and 14: 960·7²·4,
    # feature 960·7², hidden 1280 — the blocks from 112 channels on
    elements = 112**2 * 16 + 1152 * 196 * 2 + 672 * (196 + 49) + 960 * 49 * 4 + 960 * 49 + 1280
    floors = coefficient_floors([DifferenceRow(deep, relu)])
    assert floors[PARAMETERS.index("hard_swish_elements")] == pytest.approx(0.5 * 0.5 / (elements / 1e6))


def test_a_published_difference_pulls_its_coefficient() -> None:
    rows = [row for row in synthetic() if not row.family.startswith("mobilenet_v3")]
    slower = LatencyRow("a", published("mobilenet_v3_large"), "v5", "x", 10.0)
    faster = LatencyRow("b", published("mobilenet_v3_large_relu"), "v5", "x", 7.0)
    column = PARAMETERS.index("hard_swish_elements")
    assert fit(rows, [], WIDE).coefficients[column] == pytest.approx(0, abs=1e-6)
    assert fit(rows, [DifferenceRow(slower, faster)], WIDE).coefficients[column] == pytest.approx(3 / 1.511, rel=0.01)


def test_rows_of_pixel_1() -> None:
    rows = latency_rows("pixel1")
    assert {r.campaign for r in rows} == {"v5", "v1", "zoo"}
    assert sum(r.campaign == "zoo" for r in rows) == 22
    assert sum(r.campaign == "v1" for r in rows) == 24
    assert all(r.family == "mobilenet_v2" for r in rows if r.campaign == "zoo")
    assert not any(r.latency_ms in (57.5, 68.9, 54.4) for r in rows), "kernels that are not optimised"


@pytest.mark.parametrize("group", [one_out, network_out, family_out])
def test_a_held_out_row_never_touches_its_own_prediction(group: object, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = latency_rows("pixel1")
    index = next(i for i, r in enumerate(rows) if r.network == "mobilenet_v3_large/192")
    only = group(rows[index])  # type: ignore[operator]
    before = fit_device("pixel1", lambda r: group(r) != only)  # type: ignore[operator]
    spoiled = tuple(replace(r, latency_ms=3 * r.latency_ms) if i == index else r for i, r in enumerate(rows))
    fitted_with_it = fit_device("pixel1").predict([rows[index]])
    monkeypatch.setattr(campaigns, "latency_rows", lambda _device: spoiled)
    after = fit_device("pixel1", lambda r: group(r) != only)  # type: ignore[operator]
    assert after.predict([rows[index]]).tolist() == before.predict([rows[index]]).tolist()
    assert fit_device("pixel1").predict([rows[index]]) != pytest.approx(fitted_with_it, rel=1e-4)


def test_held_out_groups_take_ablations_and_repeats_along() -> None:
    rows = {(r.network, r.campaign): r for r in latency_rows("pixel1")}
    large = one_out(rows["mobilenet_v3_large", "v5"])
    for name in ("relu", "hswish16", "hswish112"):
        assert one_out(rows[f"mobilenet_v3_large_{name}", "v5"]) == large
    assert one_out(rows["mobilenet_v3_large", "v1"]) != large
    assert network_out(rows["mobilenet_v3_large", "v1"]) == network_out(rows["mobilenet_v3_large", "v5"])
    assert one_out(rows["mobilenet_v3_large_minimalistic", "v5"]) != large


def test_pixel_2_learns_nothing_of_a_held_out_network_through_pixel_1(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {device: latency_rows(device) for device in FITTED_DEVICES}
    target = kept["pixel2"][2]
    assert target.network == "mnasnet_a1"
    without = fit_device("pixel2", lambda r: network_out(r) != network_out(target))
    spoiled = {
        d: tuple(replace(r, latency_ms=2 * r.latency_ms) if r.network == "mnasnet_a1" else r for r in rows)
        for d, rows in kept.items()
    }
    monkeypatch.setattr(campaigns, "latency_rows", lambda device: spoiled[device])
    again = fit_device("pixel2", lambda r: network_out(r) != network_out(target))
    assert again.predict([target]).tolist() == without.predict([target]).tolist()


@pytest.mark.parametrize("device", FITTED_DEVICES)
def test_published_differences_come_out_within_three_percent(device: str) -> None:
    found = fit_device(device)
    reference = latency_rows(device)[0]
    assert reference.network == "mobilenet_v3_large"
    for row in difference_rows(device):
        slower, faster = found.predict([row.slower, row.faster])
        assert abs(slower - faster - row.difference_ms) <= 0.03 * reference.latency_ms
        assert slower > faster


@pytest.mark.parametrize("device", FITTED_DEVICES)
def test_shipped_profile_is_this_fit(device: str) -> None:
    profile = json.loads((files("mnv3search.latency") / "profiles" / f"{device}.json").read_text(encoding="utf-8"))
    found = fit_device(device)
    shipped = [profile["coefficients"][name] for name in PARAMETERS]
    assert found.coefficients == pytest.approx(shipped, abs=5e-3, rel=5e-3)
    assert found.scales == pytest.approx(profile["campaign_scales"], rel=1e-3)
    assert np.array(profile["error"]["covariance"]) == pytest.approx(found.covariance, rel=0.05, abs=1e-3)


@pytest.mark.slow
def test_held_out_errors_reach_the_goals_and_are_those_in_the_profile() -> None:
    near, far = held_out("pixel1", one_out), held_out("pixel1", family_out)
    profile = json.loads((files("mnv3search.latency") / "profiles" / "pixel1.json").read_text(encoding="utf-8"))
    for scheme, found in (("leave_one_out", near), ("leave_one_family_out", far)):
        for line, shipped in zip(error_table(found), profile["held_out"][scheme], strict=True):
            assert (line["campaign"], line["family"], line["rows"]) == (
                shipped["campaign"], shipped["family"], shipped["rows"]
            )  # fmt: skip
            assert line["mean_absolute_percent"] == pytest.approx(shipped["mean_absolute_percent"], abs=0.1)
    reached = {(line["campaign"], line["family"]): line["mean_absolute_percent"] for line in error_table(near)}
    for key, goal in GOALS.items():
        assert reached[key] <= goal  # type: ignore[operator]
    residual, spread = calibrate(near, far)
    assert (residual, spread) == pytest.approx((profile["error"]["residual"], profile["error"]["spread"]), rel=0.05)
    large = [f for f in near if f.row.campaign == "v5" and f.row.family == "mobilenet_v3"]
    within = [abs(f.error) <= residual * np.sqrt(1 + spread * f.leverage) for f in large]
    assert np.mean(within) >= 0.6


def test_calibration_by_hand() -> None:
    row = latency_rows("pixel1")[0]

    def judged(error: float, leverage: float) -> HeldOut:
        return HeldOut(row, row.latency_ms * (1 + error), leverage)

    residual, spread = calibrate([judged(0.1, 0.0), judged(-0.1, 0.0)], [judged(0.2, 1.5)])
    assert residual == pytest.approx(0.1)
    assert 1 + 1.5 * spread == pytest.approx(4, rel=0.02)


def test_families_stand_apart_in_the_table() -> None:
    lines = error_table([HeldOut(row, 1.1 * row.latency_ms, 0.0) for row in latency_rows("pixel1")])
    assert len(lines) == len({(line["campaign"], line["family"]) for line in lines}) == 7
    assert all(line["mean_absolute_percent"] == pytest.approx(10) for line in lines)
