"""``mnv3search latency``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli.options import measured_options, take_device
from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine
from mnv3search.runs.settings import DEVICE

if TYPE_CHECKING:
    from mnv3search.latency.answers import Latencies
    from mnv3search.latency.measured.whole_networks import Ratio


@click.command(
    "latency",
    epilog=examples(
        "mnv3search latency mobilenet_v3_large mobilenet_v2 --device pixel1",
        "mnv3search latency best.json --device host",
        "mnv3search latency mobilenet_v3_large best.json --device host --whole",
        "mnv3search latency flowers.onnx flowers_int8.onnx --device ssh://pi@board --whole",
    ),
)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--device", default=DEVICE, show_default=True, help="See mnv3search devices.")
@measured_options
@click.option("--whole", is_flag=True, help="On a measured device: time whole networks in turn, set against the first.")
@click.option("--against", metavar="NETWORK", help="With --whole: set them against this one.")
@json_option
def latency_command(networks: tuple[str, ...], whole: bool, against: str | None, as_json: bool, **options: Any) -> None:
    """How long networks take, and how sure that is.

    A NETWORK is a published network's name, such as mobilenet_v2@0.75, or a search space's for its reference; a .json
    or .safetensors file; or the folder of a run, a training or a pruning. With --whole it may be an .onnx file, which
    is timed as it stands, in onnxruntime or openvino, here or on a board.

    The error is one standard deviation: of held-out networks for an estimated device or a table, of the median for a
    measurement. Whole networks take turns, so that what slows the machine slows all of them: the ratio is that of calls
    of the same round, and its interval holds the true one in 95 % of cases.
    """
    from mnv3search.latency.answers import latencies

    text = take_device(options, str) or DEVICE
    with ProgressLine(quiet=as_json) as line:
        named = f"{len(networks)} network{'' if len(networks) == 1 else 's'}"
        line.stage(f"timing {named} whole, in turn" if whole else f"pricing {named}")
        found = latencies(networks, text, whole=whole, against=against, progress=line.step)
    if as_json:
        print_json(_mapping(found))
    else:
        _show(found)


def _mapping(found: Latencies) -> dict[str, object]:
    rows = [
        {name: value for name, value in asdict(row).items() if value is not None or name == "error_ms"}
        for row in found.rows
    ]
    content: dict[str, object] = {"device": found.device, "kind": found.kind, "networks": rows}
    if found.rounds is not None:
        content |= {"rounds": found.rounds, "against": found.against}
    if found.notes:
        content["notes"] = list(found.notes)
    return content


def _show(found: Latencies) -> None:
    from rich.markup import escape

    from mnv3search.cli.console import new_table, stdout_console

    times = "" if found.rounds is None else f", each called {found.rounds} times in turn"
    timed = found.kind == "measured"
    figures = ["ms", "± one deviation", *(["fastest call, ms"] if timed else [])]
    if found.against is not None:
        figures += [escape(f"times {found.against}"), "95 % interval"]
    title = f"Latency on {found.device} ({found.kind}, batch 1{times})"
    table = new_table("network", figures=figures, title=title)
    for index, row in enumerate(found.rows):
        digits = 2 if row.latency_ms >= 1 else 4
        error = "not stated" if row.error_ms is None else f"{row.error_ms:.{digits}f}"
        cells = [escape(row.name), f"{row.latency_ms:.{digits}f}", error]
        if timed:
            cells.append("not kept" if row.minimum_ms is None else f"{row.minimum_ms:.{digits}f}")
        if row.ratio is not None:
            cells += _ratio_cells(row.ratio, base=index == _base(found))
        table.add_row(*cells)
    console = stdout_console()
    console.print(table)
    console.say(*(f"• {note}" for note in found.notes))


def _base(found: Latencies) -> int:
    return next(index for index, row in enumerate(found.rows) if row.name == found.against)


def _ratio_cells(ratio: Ratio, *, base: bool) -> list[str]:
    if base:
        return ["1", "set against"]
    if not math.isfinite(ratio.high):
        return [f"{ratio.value:.3f}", "too few rounds"]
    return [f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"]
