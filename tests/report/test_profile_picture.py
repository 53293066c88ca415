"""The picture of a profile: what it says, and that the same profile gives the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mnv3search.errors import RunError
from mnv3search.families import published
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.profiling import CheckedNetwork, DeviceProfile
from mnv3search.report.plots import draw_profile

LARGE, SMALL = published("mobilenet_v3_large"), published("mobilenet_v3_small")
NETWORKS = (
    CheckedNetwork(LARGE, 10.2, 0.2, 10.0, 0.1, False),
    CheckedNetwork(SMALL, 3.8, 0.1, 4.0, 0.05, False),
    CheckedNetwork(SMALL, 6.0, 0.1, 6.0, 0.05, True),
)
PROFILE = DeviceProfile(
    "mnv3_large", "host:torch,threads=2", Fingerprint("A $CPU$ <fast>", 4, "x86_64"), "torch", "2.5.1", 2, "fp32",
    711, 711, 40, 93.0, 0.02, 0.01, 24, 0.02, 0.004, NETWORKS, Path("table.json"), "2026-01-31T10:00:00+00:00",
)  # fmt: skip


@pytest.fixture(scope="module")
def svg(tmp_path_factory: pytest.TempPathFactory) -> str:
    return drawn(PROFILE, tmp_path_factory.mktemp("profile"))


def drawn(profile: DeviceProfile, folder: Path) -> str:
    draw_profile(profile, folder / "p.png", folder / "p.svg")
    assert (folder / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return (folder / "p.svg").read_text(encoding="utf-8")


def test_a_stranger_reads_what_it_is(svg: str) -> None:
    for words in (
        "mnv3_large on host:torch,threads=2: predicted against measured",
        "torch 2.5.1, fp32, 2 threads; batch 1",
        "A $CPU$ &lt;fast&gt;, 4 cores, x86_64",
        "within ±5 %",
        "predicted = measured",
        "1 of the networks that the table was calibrated on",
        "2 random networks that it has not seen: mean error 3.5 %, largest 5.0 %",
        "±1 standard deviation",
    ):
        assert words in svg, words


def test_the_same_profile_gives_the_same_bytes(svg: str, tmp_path: Path) -> None:
    assert drawn(PROFILE, tmp_path) == svg


def test_one_network_alone_and_none_that_was_calibrated_on(tmp_path: Path) -> None:
    svg = drawn(replace(PROFILE, networks=NETWORKS[:1]), tmp_path)
    assert "1 random network that it has not seen" in svg
    assert "calibrated on" not in svg


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="make the folder"):
        draw_profile(PROFILE, tmp_path / "none" / "p.png", tmp_path / "none" / "p.svg")


def test_a_profile_is_a_frame_of_its_networks() -> None:
    frame = PROFILE.to_frame()
    assert frame["measured_ms"].tolist() == [10.0, 4.0, 6.0]
    assert frame["predicted_error_ms"].tolist() == [0.2, 0.1, 0.1]
    assert frame["calibrated_on"].tolist() == [False, False, True]
    assert frame["architecture"].tolist() == [LARGE, SMALL, SMALL]
    assert frame["blocks"][0] == str(LARGE)
