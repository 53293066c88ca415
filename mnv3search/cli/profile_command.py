"""``mnv3search profile``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv3search.cli.device_options import composed, measured_options
from mnv3search.cli.output import examples, json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.latency.measured.profiling import DeviceProfile
    from mnv3search.latency.measured.table_device import TableDevice
    from mnv3search.latency.model import Progress
    from mnv3search.space import SearchSpace

PICTURE = "predicted-against-measured"


@click.command(
    "profile",
    epilog=examples(
        "mnv3search profile --space mnv3_large",
        "mnv3search profile --space mnv3_small --runtime torch --threads 2",
        "mnv3search profile --space mnv3_large --device ssh://pi@board --precision int8",
    ),
)
@click.option("--space", required=True, help="See mnv3search spaces; a name or a YAML file.")
@click.option("--device", default="host", show_default=True, help="host or ssh://USER@BOARD (mnv3search devices).")
@measured_options
@click.option(
    "--seconds", type=float, default=1_800.0, show_default=True, help="Stop after so long; call it again to go on."
)
@click.option("--rounds", type=int, help="Least calls of every layer.  [default: as many as a search makes]")
@click.option(
    "--check", type=int, default=6, show_default=True, help="Unseen networks to time whole; 0 leaves that out."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the report.  [default: runs/profile-SPACE-DEVICE]"
)
@json_option
def command(
    space: str,
    device: str,
    runtime: str | None,
    threads: int | None,
    precision: str | None,
    allow_stale: bool,
    seconds: float,
    rounds: int | None,
    check: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure every layer of a space on a device, and try the table on whole networks.

    The times are kept: Ctrl-C loses nothing, the same command goes on, and searches on this device start at once.
    Random networks of the space, on which the table was not calibrated, are then timed whole and compared with what
    it predicts.
    """
    from mnv3search.errors import DeviceError
    from mnv3search.latency.device_spec import DeviceSpec
    from mnv3search.latency.measured.measured_devices import measured_device
    from mnv3search.latency.measured.profiling import measuring_plan
    from mnv3search.space import load_space

    text = composed(device, runtime, threads, precision, allow_stale=allow_stale)
    if not DeviceSpec.names(text):
        raise DeviceError(f"device {text!r:.80} cannot be measured; give --device host or ssh://USER@BOARD")
    loaded, plan = load_space(space), measuring_plan(rounds, seconds)
    spec = DeviceSpec.parse(text)
    measured = measured_device(spec, plan=plan)
    profile = _measured(measured, loaded, check, quiet=as_json)
    folder = out or Path("runs") / f"profile-{_slug(loaded.name)}-{_slug(measured.name)}"
    content = _write(profile, folder, str(replace(spec, stale=False)))
    if as_json:
        print_json(content)
    else:
        _show(profile, space, str(spec), folder)


def _measured(device: TableDevice, space: SearchSpace, check: int, *, quiet: bool) -> DeviceProfile:
    from mnv3search.latency.measured.busy import busy_sentence
    from mnv3search.latency.measured.profiling import profile_device

    try:
        with ProgressLine(quiet=quiet) as line:

            def told(stage: str) -> Progress:
                line.stage(stage)
                return lambda done, total, what: line.advance(done, what, total)

            if sentence := busy_sentence(device):
                line.note(sentence)
            return profile_device(device, space, check, told)
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"what was measured is kept in {device.path}: the same command goes on")
        raise


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:80]


def _write(profile: DeviceProfile, folder: Path, text: str) -> dict[str, object]:
    """The folder's files and the note beside the table of the device ``text``; gives what ``profile.json`` holds."""
    import json

    from mnv3search.files import write_text
    from mnv3search.latency.measured.profiling import profile_mapping
    from mnv3search.latency.measured.tables_on_disk import write_note
    from mnv3search.report.plots import draw_profile

    folder.mkdir(parents=True, exist_ok=True)
    content = profile_mapping(profile) | {"folder": str(folder)}
    write_text(folder / "profile.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if profile.networks:
        draw_profile(profile, folder / f"{PICTURE}.png", folder / f"{PICTURE}.svg")
    note = profile.note()
    if note is not None:
        write_note(profile.table, replace(note, device=text))
    return content


def _show(profile: DeviceProfile, space: str, text: str, folder: Path) -> None:
    from rich.table import Table

    from mnv3search.report.plots import runtime_text

    title = f"{profile.space} on {profile.device}: {profile.machine}; {runtime_text(profile)}"
    table = Table(title=title, show_header=False, box=None, title_justify="left", padding=(0, 2))
    for label, value in _lines(profile, folder):
        table.add_row(label, value)
    console = stdout_console()
    console.print(table, markup=False, highlight=False)
    for warning in profile.warnings():
        console.print(f"• {warning}", markup=False, highlight=False, soft_wrap=True)
    following = f"mnv3search run --space {space} --device {text} --target-latency 0.8x"
    console.print(f"next: {following}", markup=False, highlight=False, soft_wrap=True)


def _lines(profile: DeviceProfile, folder: Path) -> list[tuple[str, str]]:
    from mnv3search.latency.measured.profiling import NEAR, percent

    layers = f"{profile.layers:,}"
    if profile.measured_now:
        layers += f", {profile.measured_now:,} of them measured now, in {profile.seconds:.0f} s"
    else:
        layers += ", all in the table already: nothing was measured again"
    lines = [
        ("layers", f"{layers}; at least {profile.rounds} calls each"),
        ("noise", f"one call is {percent(profile.noise)} off (median over the layers)"),
        ("drift", f"the machine's pace wandered by {percent(profile.drift)} in the table's last sitting"),
        (
            "calibration",
            f"± {percent(profile.calibration_error)} on {profile.calibration_networks} networks, each left out once",
        ),
    ]
    if errors := profile.errors:
        near, mean = sum(error <= NEAR for error in errors), sum(errors) / len(errors)
        figures = f"mean {percent(mean)}, most {percent(max(errors))}; {near} of {len(errors)} within ±5 %"
        lines.append(("error", f"{figures}: random networks timed whole, none of them calibrated on"))
        lines.append(("stated", f"± {percent(profile.stated)}: the deviation that the table gives for these networks"))
    lines.append(("table", str(profile.table)))
    lines.append(("report", f"{folder}: profile.json" + (f", {PICTURE}.png and .svg" if profile.networks else "")))
    return lines
