"""``mnv3search device``: devices from times that were taken elsewhere."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv3search.cli.group import Group
from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnv3search.latency.model import Progress

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

_name_option = click.option("--name", required=True, help="The device's name: letters, digits, _ - and dots.")
_out_option = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The device's file.  [default: NAME.json]"
)


@click.group(
    "device",
    cls=Group,
    epilog=examples(
        "mnv3search device fit --from times.csv --name my_phone",
        "mnv3search device export-layers --space mnv3_large --out layers/",
    ),
)
def command() -> None:
    """Make a device of times taken elsewhere.

    For a phone or board that cannot run Python: time whole networks there (fit), or the layers of a space as ONNX files
    (export-layers, then import). Either gives a file for --device.
    """


@command.command(
    "fit",
    epilog=examples(
        "mnv3search device fit --from times.csv --name my_phone",
        "mnv3search run --space mnv3_large --target-latency 50ms --device my_phone.json",
    ),
)
@click.option(
    "--from", "times", required=True, type=click.Path(path_type=Path),
    help="CSV with the columns architecture (NAME[@WIDTH][/RESOLUTION] or FILE.json) and ms (or us, or s).",
)  # fmt: skip
@_name_option
@_out_option
@json_option
def fit(times: Path, name: str, out: Path | None, as_json: bool) -> None:
    """Fit a device to the times of whole networks.

    5 networks will do, 25 to 200 are better; it says how far it is off on networks that it did not see.
    """
    from mnv3search.latency.device_documents import check_writable, write_device
    from mnv3search.latency.fitted.network_times import read_network_times, suspect_notices
    from mnv3search.latency.fitted.whole_fit import fit_whole_networks

    path = _path(name, out)
    check_writable(path)
    timed = read_network_times(times)
    with _told(as_json, "fitting, with networks held out") as progress:
        found = fit_whole_networks(timed.networks, timed.times_ms, name, progress=progress)
    write_device(path, found.device)
    held_out = found.held_out.summary()
    notices = [
        *timed.notices,
        *suspect_notices(timed.rows, found.suspects(), found.held_out.relative.tolist()),
    ]
    if as_json:
        print_json({"device": str(path), "name": name, "held_out": held_out, "notices": notices})
        return
    _note(notices)
    mean, median = held_out["mean_percent"], held_out["median_percent"]
    click.echo(
        f"{path}: fitted to {len(timed.networks)} networks. On networks left out it is {mean:.1f} % off on average "
        f"(median {median:.1f} %), your timings' own noise included; {held_out['within_one_deviation']:.0%} are within "
        f"one stated deviation, {held_out['within_two_deviations']:.0%} within two."
    )
    _next(path)


@command.command(
    "export-layers",
    epilog=examples(
        "mnv3search device export-layers --space mnv3_large --out layers/",
        "mnv3search device export-layers --space my_space.yaml --out layers/ --networks 12",
    ),
)
@click.option("--space", required=True, help="A space's name (mnv3search spaces) or YAML file.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to.")
@click.option(
    "--networks", default=8, show_default=True, type=click.IntRange(0, 100),
    help="How many whole networks to write beside the layers; 5 or more calibrate the device.",
)  # fmt: skip
@json_option
def export_layers(space: str, out: Path, networks: int, as_json: bool) -> None:
    """Write the layers of a space as ONNX files to time.

    An interrupted export goes on by the same command. README.txt in the folder says what to time and how to tell it.
    """
    from mnv3search.latency.layer_files.files import planned_layers, write_layers
    from mnv3search.space import load_space

    plan = planned_layers(space, load_space(space).all_units(), networks)
    size = f"{plan.bytes / 1e6:.0f} MB"
    if not as_json:
        click.echo(f"{len(plan.layers)} layers and {len(plan.networks)} networks, about {size}, to {out}", err=True)
    try:
        with _told(as_json, "writing layers") as progress:
            kept = write_layers(plan, out, progress)
    except KeyboardInterrupt as stopped:
        stopped.add_note("what was written is kept: the same command goes on from there")
        raise
    if as_json:
        counts = {"layers": len(plan.layers), "networks": len(plan.networks), "kept": kept}
        print_json({"folder": str(out), "space": space, **counts, "about_bytes": plan.bytes})
        return
    click.echo(
        f"{out}: {len(plan.layers)} layers and {len(plan.networks)} networks" + (f", {kept} kept" if kept else "")
    )
    click.echo(f"Next: time them as {out / 'README.txt'} says, then mnv3search device import --layers {out} …")


@command.command(
    "import",
    epilog=examples(
        "mnv3search device import --layers layers/ --times times.csv --name my_phone",
        "mnv3search device import --layers layers/ --times some.csv --name my_phone --partial",
    ),
)
@click.option("--layers", required=True, type=click.Path(path_type=Path), help="The folder that export-layers wrote.")
@click.option(
    "--times", required=True, type=click.Path(path_type=Path),
    help="CSV with the columns file and ms (or us, or s), and perhaps minimum_ms.",
)  # fmt: skip
@_name_option
@_out_option
@click.option("--partial", is_flag=True, help="Accept that layers are missing; price them like those near them.")
@json_option
def import_(layers: Path, times: Path, name: str, out: Path | None, partial: bool, as_json: bool) -> None:
    """Make a device of exported layers' times.

    Whole networks among them calibrate the sums; without these a wide error is stated.
    """
    from mnv3search.latency.device_documents import check_writable, write_device
    from mnv3search.latency.layer_files.layer_times import import_layers

    path = _path(name, out)
    check_writable(path)
    found = import_layers(layers, times, name, partial=partial)
    write_device(path, found.device)
    calibration = found.device.calibration
    error = None if calibration is None else 100 * calibration.relative_std
    if as_json:
        counts = {"layers": found.layers, "missing": found.missing, "networks": found.networks}
        calibrated = {"calibrated": calibration is not None, "held_out_rms_percent": error}
        print_json({"device": str(path), "name": name, **counts, **calibrated, "notices": found.notices})
        return
    _note(found.notices)
    judged = "" if error is None else f"; each left out of the calibration, the networks are {error:.1f} % off (rms)"
    click.echo(f"{path}: {found.layers} layers and {found.networks} whole networks{judged}.")
    _next(path)


def _path(name: str, out: Path | None) -> Path:
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} must be 1 to 100 letters, digits, _, - or dots", param_hint="--name")
    return Path(f"{name}.json") if out is None else out


@contextlib.contextmanager
def _told(quiet: bool, what: str) -> Iterator[Progress]:
    with ProgressLine(quiet=quiet) as line:
        line.stage(what)
        yield lambda done, total, detail: line.advance(done, detail, total)


def _note(notices: Sequence[str]) -> None:
    for notice in notices:
        click.echo(f"notice: {notice}", err=True)


def _next(path: Path) -> None:
    click.echo(f"Next: mnv3search run --space mnv3_large --target-latency 50ms --device {path}")
