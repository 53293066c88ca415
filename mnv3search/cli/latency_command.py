"""``mnv3search latency``."""

from __future__ import annotations

import click

from mnv3search.cli.output import json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine


@click.command(
    "latency",
    epilog="Examples:  mnv3search latency mobilenet_v3_large mobilenet_v2 --device pixel1  |  "
    "mnv3search latency best.json --device host",
)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--device", default="pixel1", show_default=True, help="See mnv3search devices.")
@click.option("--whole", is_flag=True, help="On host: time whole networks, interleaved, in place of the table's sum.")
@json_option
def command(networks: tuple[str, ...], device: str, whole: bool, as_json: bool) -> None:
    """How long networks take, and how sure that is.

    The error is one standard deviation: of held-out networks for an estimated device or a table, of the median for a
    measurement.
    """
    from mnv3search.runs.judging import latencies

    with ProgressLine(quiet=as_json) as progress:
        found = latencies(networks, device, whole=whole, progress=progress)
    if as_json:
        rows = [{"name": n, "latency_ms": ms, "error_ms": error} for n, ms, error in found.rows]
        print_json({"device": found.device, "kind": found.kind, "networks": rows})
        return
    from rich.table import Table

    table = Table("network", title=f"Latency on {found.device} ({found.kind}, batch 1)")
    table.add_column("ms", justify="right")
    table.add_column("± one deviation", justify="right")
    for name, ms, error in found.rows:
        table.add_row(name, f"{ms:.2f}", "not stated" if error is None else f"{error:.2f}")
    stdout_console().print(table)
