"""``mnv3search devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mnv3search.cli.output import examples, json_option, print_json, stdout_console

if TYPE_CHECKING:
    from mnv3search.latency.devices import DeviceDescription
    from mnv3search.latency.measured.tables_on_disk import TableOnDisk


@click.command(
    "devices",
    epilog=examples(
        "mnv3search devices",
        "mnv3search devices --json",
    ),
)
@json_option
def command(as_json: bool) -> None:
    """The devices, what their figures are and how good, and the latency tables measured so far."""
    from mnv3search.latency.devices import describe_devices
    from mnv3search.latency.measured.tables_on_disk import tables_on_disk

    devices, tables = describe_devices(), tables_on_disk()
    if as_json:
        print_json({"devices": [_device_mapping(d) for d in devices], "tables": [_table_mapping(t) for t in tables]})
        return
    _show_devices(devices)
    _show_tables(tables)


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
    from rich.table import Table

    table = Table("device", "figures are", "what it is", "error on held-out networks", title="Devices")
    for device in devices:
        table.add_row(device.name, device.kind, device.summary, device.held_out)
    stdout_console().print(table)


def _show_tables(tables: tuple[TableOnDisk, ...]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mnv3search.latency.measured.tables_on_disk import cache_place

    console = stdout_console()
    if not tables:
        console.print(f"No latency table is measured yet: mnv3search profile --space mnv3_large ({cache_place()})")
        return
    shown = Table("device", "of", "measured", "error on unseen networks", "state", title="Measured latency tables")
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
    console.print(f"The tables lie in {cache_place()}.", markup=False, highlight=False, soft_wrap=True)


def _error(table: TableOnDisk) -> str:
    from mnv3search.latency.measured.profiling import percent

    if table.note is not None:
        note = table.note
        errors = f"mean {percent(note.mean_error)}, most {percent(note.max_error)}"
        return f"{errors} ({note.networks} networks of {note.space})"
    return "not tried: mnv3search profile"
