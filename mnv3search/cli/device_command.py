"""``mnv3search devices``, ``device`` and ``profile``: devices, also from times taken elsewhere, and latency tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli.group import Group
from mnv3search.cli.options import measured_options, take_device
from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.latency.devices import DeviceDescription
    from mnv3search.latency.measured.profiling import DeviceProfile
    from mnv3search.latency.measured.table_device import TableDevice
    from mnv3search.latency.measured.tables_on_disk import TableOnDisk
    from mnv3search.latency.model import Progress
    from mnv3search.space import SearchSpace


class _Devices(Group):
    """Lists when it is called alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words after the group's own options."""
        return click.Group.parse_args(self, ctx, args)


@click.group(
    "devices",
    cls=_Devices,
    invoke_without_command=True,
    epilog=examples(
        "mnv3search devices",
        "mnv3search devices --json",
        "mnv3search devices export host --out table.json",
        "mnv3search devices import table.json",
    ),
)
@json_option
@click.pass_context
def devices_command(ctx: click.Context, as_json: bool) -> None:
    """The devices, what their figures are and how good, and the latency tables measured so far."""
    from mnv3search.latency.devices import describe_devices
    from mnv3search.latency.measured.tables_on_disk import tables_on_disk

    if ctx.invoked_subcommand is not None:
        return
    devices, tables = describe_devices(), tables_on_disk()
    if as_json:
        print_json({"devices": [_device_mapping(d) for d in devices], "tables": [_table_mapping(t) for t in tables]})
        return
    _show_devices(devices)
    _show_tables(tables)


@devices_command.command(
    "export",
    epilog=examples(
        "mnv3search devices export host --out table.json",
        "mnv3search devices export host:torch,threads=2",
    ),
)
@click.argument("table")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file.  [default: the table's name, .json]"
)
@json_option
def export_table(table: str, out: Path | None, as_json: bool) -> None:
    """Write a latency table as JSON, to keep or to move to another machine.

    TABLE is a device that was measured, such as host, whose newest table is taken, or a table's file.
    """
    import json

    from mnv3search.errors import DeviceError
    from mnv3search.files import write_text
    from mnv3search.latency.measured.table_file import load_table, table_mapping
    from mnv3search.latency.measured.tables_on_disk import tables_on_disk

    path = next((found.path for found in tables_on_disk() if found.key and found.device == table), Path(table))
    if path == Path(table) and path.suffix not in (".sqlite", ".json"):
        raise DeviceError(f"no latency table of {table!r:.80} is measured; mnv3search devices lists those there are")
    loaded = load_table(path)
    written = out or Path(path.with_suffix(".json").name)
    write_text(written, json.dumps(table_mapping(loaded), separators=(",", ":")) + "\n")
    if as_json:
        print_json({"table": str(path), "file": str(written), "entries": len(loaded)})
    else:
        click.echo(f"{written}: {len(loaded)} layers and networks of {path}")


@devices_command.command("import", epilog=examples("mnv3search devices import table.json"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def import_tables(files: tuple[Path, ...], as_json: bool) -> None:
    """Add the times of latency tables, JSON or SQLite, to those kept here.

    Times of another machine stay in a table of their own; what is here already is not added twice.
    """
    from mnv3search.latency.measured.table import table_path
    from mnv3search.latency.measured.table_file import TableFile, load_table

    added = []
    for file in files:
        loaded = load_table(file)
        path = table_path(loaded.key)
        load_table(path, loaded.key)  # takes over what an earlier version left
        with TableFile(path, loaded.key) as kept:
            kept.add(loaded)
            added.append({"file": str(file), "table": str(path), "entries": len(kept.table)})
    if as_json:
        print_json({"imported": added})
        return
    for one in added:
        click.echo(f"{one['file']}: added to {one['table']}, which has {one['entries']} layers and networks now")


def _device_mapping(device: DeviceDescription) -> dict[str, object]:
    return {"name": device.name, "kind": device.kind, "summary": device.summary, "held_out": device.held_out or None}


def _table_mapping(table: TableOnDisk) -> dict[str, object]:
    content: dict[str, object] = {
        "path": str(table.path), "bytes": table.size, "measured_at": table.measured_at.isoformat(timespec="seconds"),
        "damage": table.damage or None, "stale": table.stale or None,
    }  # fmt: skip
    if table.key is not None:
        key, note = table.key, table.note
        content |= {
            "device": table.device, "machine": str(key.device), "runtime": key.runtime,
            "runtime_version": key.runtime_version, "threads": key.threads, "precision": key.precision,
            "checked": None if note is None else {
                "at": note.checked_at, "space": note.space, "layers": note.layers, "networks": note.networks,
                "mean_error": note.mean_error, "max_error": note.max_error,
            },
        }  # fmt: skip
    return content


def _show_devices(devices: tuple[DeviceDescription, ...]) -> None:
    from mnv3search.cli.console import new_table, stdout_console

    table = new_table("device", "figures are", "what it is", "error on held-out networks", title="Devices")
    for device in devices:
        table.add_row(device.name, device.kind, device.summary, device.held_out)
    stdout_console().print(table)


def _show_tables(tables: tuple[TableOnDisk, ...]) -> None:
    from rich.markup import escape

    from mnv3search.cli.console import new_table, stdout_console
    from mnv3search.latency.measured.tables_on_disk import cache_folder

    console = stdout_console()
    if not tables:
        console.print(f"No latency table is measured yet: mnv3search profile --space mnv3_large ({cache_folder()})")
        return
    shown = new_table("device", "of", "measured", "error on unseen networks", "state", title="Measured latency tables")
    for table in tables:
        when = f"{table.measured_at.astimezone():%Y-%m-%d %H:%M}"
        if table.key is None:
            shown.add_row(escape(table.path.name), "", when, "", escape(table.damage))
            continue
        key = table.key
        of = f"{key.device}; {key.runtime} {key.runtime_version}"
        state = f"stale: {table.stale}" if table.stale else "as this machine is now"
        shown.add_row(escape(table.device), escape(of), when, _error(table), escape(state))
    console.print(shown)
    console.say(f"The tables lie in {cache_folder()}.")


def _error(table: TableOnDisk) -> str:
    from mnv3search.latency.measured.profiling import percent

    if table.note is not None:
        note = table.note
        errors = f"mean {percent(note.mean_error)}, most {percent(note.max_error)}"
        return f"{errors} ({note.networks} networks of {note.space})"
    return "not tried: mnv3search profile"


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
def device_command() -> None:
    """Make a device of times taken elsewhere.

    For a phone or board that cannot run Python: time whole networks there (fit), or the layers of a space as ONNX files
    (export-layers, then import). Either gives a file for --device.
    """


@device_command.command(
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
    from mnv3search.latency.fitted.device import fit_whole_networks
    from mnv3search.latency.fitted.times import read_network_times, suspect_notices

    path = _device_path(name, out)
    check_writable(path)
    timed = read_network_times(times)
    with ProgressLine(quiet=as_json) as line:
        line.stage("fitting, with networks held out")
        found = fit_whole_networks(timed.networks, timed.times_ms, name, progress=line.step)
    write_device(path, found.device)
    held_out = found.held_out.summary()
    notices = [*timed.notices, *suspect_notices(timed.rows, found.suspects(), found.held_out.relative.tolist())]
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


@device_command.command(
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
    help="How many whole networks to write in addition to the layers; 5 or more calibrate the device.",
)  # fmt: skip
@json_option
def export_layers(space: str, out: Path, networks: int, as_json: bool) -> None:
    """Write the layers of a space as ONNX files to time.

    An interrupted export goes on by the same command. README.txt in the folder says what to time and in what form.
    """
    from mnv3search.latency.layer_files.exported import planned_layers, write_layers
    from mnv3search.space import load_space

    plan = planned_layers(space, load_space(space).all_units(), networks)
    size = f"{plan.bytes / 1e6:.0f} MB"
    if not as_json:
        click.echo(f"{len(plan.layers)} layers and {len(plan.networks)} networks, about {size}, to {out}", err=True)
    try:
        with ProgressLine(quiet=as_json) as line:
            line.stage("writing layers")
            kept = write_layers(plan, out, line.step)
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


@device_command.command(
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
    from mnv3search.latency.layer_files.imported import import_layers

    path = _device_path(name, out)
    check_writable(path)
    found = import_layers(layers, times, name, partial=partial)
    write_device(path, found.device)
    calibration = found.device.calibration
    error = None if calibration is None else 100 * calibration.relative_std
    timed, networks = len(found.device.layers_ms), len(found.device.whole)
    if as_json:
        counts = {"layers": timed, "missing": found.missing, "networks": networks}
        calibrated = {"calibrated": calibration is not None, "held_out_rms_percent": error}
        print_json({"device": str(path), "name": name, **counts, **calibrated, "notices": found.notices})
        return
    _note(found.notices)
    held_out = "" if error is None else f"; each left out of the calibration, the networks are {error:.1f} % off (rms)"
    click.echo(f"{path}: {timed} layers and {networks} whole networks{held_out}.")
    _next(path)


def _device_path(name: str, out: Path | None) -> Path:
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} must be 1 to 100 letters, digits, _, - or dots", param_hint="--name")
    return Path(f"{name}.json") if out is None else out


def _note(notices: Sequence[str]) -> None:
    for notice in notices:
        click.echo(f"notice: {notice}", err=True)


def _next(path: Path) -> None:
    click.echo(f"Next: mnv3search run --space mnv3_large --target-latency 50ms --device {path}")


HOST = "host"
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
@click.option("--device", default=HOST, show_default=True, help="host or ssh://USER@BOARD (mnv3search devices).")
@measured_options
@click.option(
    "--seconds", type=float, default=1_800.0, show_default=True, help="Stop after so long; call it again to go on."
)
@click.option("--rounds", type=int, help="Least calls of every layer.  [default: as many as a search makes]")
@click.option(
    "--check", type=int, default=6, show_default=True, help="Unseen networks to time whole; 0 leaves that out."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the report.  [default: runs/<date>-profile-SPACE-DEVICE]"
)
@json_option
def profile_command(
    space: str, seconds: float, rounds: int | None, check: int, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure every layer of a space on a device, and try the table on whole networks.

    The times are kept: Ctrl-C loses nothing, the same command goes on, and searches on this device start at once.
    Random networks of the space, on which the table was not calibrated, are then timed whole and compared with what
    it predicts.
    """
    from mnv3search.errors import DeviceError
    from mnv3search.latency.device_spec import DeviceSpec
    from mnv3search.latency.measured.profiling import measuring_plan
    from mnv3search.latency.measured.table_device import measured_device
    from mnv3search.manifest import free_folder
    from mnv3search.space import load_space

    text = take_device(options, str) or HOST
    if not DeviceSpec.names(text):
        raise DeviceError(f"device {text!r:.80} cannot be measured; give --device host or ssh://USER@BOARD")
    loaded, plan = load_space(space), measuring_plan(rounds, seconds)
    spec = DeviceSpec.parse(text)
    measured = measured_device(spec, plan=plan)
    profile = _measured(measured, loaded, check, quiet=as_json)
    folder = out or free_folder("profile", loaded.name, measured.name)
    content = _write_profile(profile, folder, str(replace(spec, stale=False)))
    if as_json:
        print_json(content)
    else:
        _show_profile(profile, space, str(spec), folder)


def _measured(device: TableDevice, space: SearchSpace, check: int, *, quiet: bool) -> DeviceProfile:
    from mnv3search.latency.measured.profiling import profile_device
    from mnv3search.latency.measured.whole_networks import busy_sentence

    try:
        with ProgressLine(quiet=quiet) as line:

            def on_stage(stage: str) -> Progress:
                line.stage(stage)
                return line.step

            if sentence := busy_sentence(device):
                line.note(sentence)
            return profile_device(device, space, check, on_stage)
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"what was measured is kept in {device.path}: the same command goes on")
        raise


def _write_profile(profile: DeviceProfile, folder: Path, text: str) -> dict[str, object]:
    """The folder's files and the note with the table of the device ``text``; gives what ``profile.json`` holds."""
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


def _show_profile(profile: DeviceProfile, space: str, text: str, folder: Path) -> None:
    from rich.table import Table

    from mnv3search.cli.console import stdout_console
    from mnv3search.report.plots import runtime_text

    title = f"{profile.space} on {profile.device}: {profile.machine}; {runtime_text(profile)}"
    table = Table(title=title, show_header=False, box=None, title_justify="left", padding=(0, 2))
    for label, value in _profile_lines(profile, folder):
        table.add_row(label, value)
    console = stdout_console()
    console.print(table, markup=False, highlight=False)
    console.say(*(f"• {warning}" for warning in profile.warnings()))
    console.say(f"next: mnv3search run --space {space} --device {text} --target-latency 0.8x")


def _profile_lines(profile: DeviceProfile, folder: Path) -> list[tuple[str, str]]:
    from mnv3search.latency.measured.profiling import NEAR, percent

    layers = f"{profile.layers:,}"
    if profile.measured_now:
        layers += f", {profile.measured_now:,} of them measured now, in {profile.seconds:.0f} s"
    else:
        layers += ", all in the table already: nothing was measured again"
    lines = [
        ("layers", f"{layers}; at least {profile.rounds} calls each"),
        ("noise", f"one call is {percent(profile.noise)} off (median over the layers)"),
        ("drift", f"the clock drifted by {percent(profile.drift)} in the table's last session"),
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
