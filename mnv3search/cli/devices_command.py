"""``mnv3search devices``."""

from __future__ import annotations

import click

from mnv3search.cli.output import json_option, print_json, stdout_console


@click.command("devices", epilog="Examples:  mnv3search devices  |  mnv3search devices --json")
@json_option
def command(as_json: bool) -> None:
    """The devices, and what their figures are."""
    from mnv3search.latency.devices import describe_devices

    devices = describe_devices()
    if as_json:
        print_json({"devices": [{"name": d.name, "kind": d.kind, "summary": d.summary} for d in devices]})
        return
    from rich.table import Table

    table = Table("device", "figures are", "what it is", title="Devices")
    for device in devices:
        table.add_row(device.name, device.kind, device.summary)
    stdout_console().print(table)
