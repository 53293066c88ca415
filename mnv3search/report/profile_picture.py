"""A device's profile as a picture: what its table predicts against what whole networks take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.latency.measured.profiling import NEAR, CheckedNetwork, DeviceProfile, percent
from mnv3search.report.figures import BEST, FRONT, INK, QUIET, canvas, save, write_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = "#eaeef2"


def headline(profile: DeviceProfile) -> str:
    """In what the networks were timed: ``onnxruntime 1.22.0, fp32, 1 thread``."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    return f"{profile.runtime} {profile.runtime_version}, {profile.precision}, {threads}"


def draw_profile(profile: DeviceProfile, png: Path, svg: Path) -> None:
    """Draw each network's prediction and measurement, with bars of one deviation, the diagonal and a band of ±5 %.

    Networks of the calibration are hollow, unseen ones filled; the same profile gives the same bytes.

    Raises:
        RunError: a file cannot be written; what stood there before is untouched.
    """
    title = f"{profile.space} on {profile.device}: predicted against measured"
    machine = f"{profile.machine}; {headline(profile)}; batch 1"
    figure, axes = canvas(f"measured, whole networks, ms\n{machine}", "predicted by the layers' table, ms", title)
    low, high = _limits(profile.networks)
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - NEAR), line * (1 + NEAR), color=BAND, lw=0, zorder=1, label="within ±5 %")
    axes.plot(line, line, color=QUIET, lw=1, zorder=2, label="predicted = measured")
    fitted = [network for network in profile.networks if network.calibrated_on]
    _points(axes, fitted, FRONT, "white", f"{len(fitted)} of the networks that the table was calibrated on")
    errors = profile.errors
    if errors:
        found = f"mean error {percent(float(np.mean(errors)))}, largest {percent(max(errors))}"
        which = "1 random network" if len(errors) == 1 else f"{len(errors)} random networks"
        _points(axes, profile.unseen, BEST, BEST, f"{which} that it has not seen: {found}")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.text(
        0.02, 0.97, "bars: ±1 standard deviation", transform=axes.transAxes, fontsize=9, color=INK, va="top", ha="left"
    )
    write_legend(figure, axes)
    save(figure, png, svg)


def _points(axes: Axes, networks: Sequence[CheckedNetwork], colour: str, fill: str, label: str) -> None:
    if not networks:
        return
    axes.errorbar(
        [n.measured_ms for n in networks], [n.predicted_ms for n in networks],
        xerr=[n.measured_error_ms for n in networks], yerr=[n.predicted_error_ms for n in networks],
        fmt="o", ms=6, mfc=fill, mec=colour, color=colour, elinewidth=0.9, capsize=2.5, capthick=0.9, zorder=4,
        label=label,
    )  # fmt: skip


def _limits(networks: Sequence[CheckedNetwork]) -> tuple[float, float]:
    """Both axes alike: every bar, and a margin."""
    low = min(min(n.measured_ms - n.measured_error_ms, n.predicted_ms - n.predicted_error_ms) for n in networks)
    high = max(max(n.measured_ms + n.measured_error_ms, n.predicted_ms + n.predicted_error_ms) for n in networks)
    margin = 0.08 * (high - low) or 0.05 * high
    return max(0.0, low - margin), high + margin
