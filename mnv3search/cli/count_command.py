"""``mnv3search count``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mnv3search.cli.output import examples, json_option, print_json, stdout_console

if TYPE_CHECKING:
    from rich.table import Table

    from mnv3search.cost.counts import Counts
    from mnv3search.graph.model_file import OnnxModel


@click.command(
    "count",
    epilog=examples(
        "mnv3search count mobilenet_v3_large mobilenet_v2@0.75/192",
        "mnv3search count best.json runs/flowers --layers",
        "mnv3search count flowers.onnx flowers_int8.onnx",
        "mnv3search count mnv3_small_32 --check",
    ),
)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--layers", is_flag=True, help="Show every layer.")
@click.option("--check", is_flag=True, help="Count again with fvcore (needs torch, slower) and compare.")
@json_option
def command(networks: tuple[str, ...], layers: bool, check: bool, as_json: bool) -> None:
    """MAdds, parameters, activations, peak memory.

    Exact, by layer, without torch.

    A NETWORK is NAME, NAME@WIDTH, NAME/RESOLUTION, NAME@WIDTH/RESOLUTION (with :torchvision after the width for that
    scaling rule), where NAME is a published network's, or a search space's for its reference; a .json or .safetensors
    file; or the folder of a run, a training or a pruning. Or it is an .onnx file: then its graph is counted, in which
    norms are folded into convolutions.
    """
    from mnv3search.cost.counts import Counts, count
    from mnv3search.graph.model_file import is_model_file, read_model
    from mnv3search.naming import parse_network

    totals = [(name, read_model(name) if is_model_file(name) else count(parse_network(name))) for name in networks]
    counted = [(name, counts) for name, counts in totals if isinstance(counts, Counts)]
    if check:
        _check(counted)
    if as_json:
        print_json({"networks": [_mapping(name, counts) for name, counts in totals]})
        return
    console = stdout_console()
    console.print(_totals(totals))
    for name, counts in counted if layers else ():
        console.print(_layer_table(name, counts))


def _mapping(name: str, counts: Counts | OnnxModel) -> dict[str, object]:
    from mnv3search.graph.model_file import OnnxModel

    figures = ("madds", "parameters", "activations")
    found = {"name": name} | {figure: getattr(counts, figure) for figure in figures}
    if isinstance(counts, OnnxModel):
        return found
    return {
        **found,
        "peak_memory_bytes": counts.peak_memory_bytes,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "madds": layer.madds,
                "parameters": layer.parameters,
                "activations": layer.activations,
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "kernel_size": layer.kernel_size,
                "stride": layer.stride,
                "in_size": layer.in_size,
                "out_size": layer.out_size,
            }
            for layer in counts.layers
        ],
    }


def _totals(counted: Sequence[tuple[str, Counts | OnnxModel]]) -> Table:
    from rich.table import Table

    from mnv3search.graph.model_file import OnnxModel

    table = Table("network", title="Counts (multiply-adds of convolutions and linear layers, batch 1)")
    for column in ("MAdds", "parameters", "activations", "peak memory"):
        table.add_column(column, justify="right")
    for name, counts in counted:
        peak = "–" if isinstance(counts, OnnxModel) else f"{counts.peak_memory_bytes / 2**20:.2f} MiB"
        table.add_row(name, f"{counts.madds:,}", f"{counts.parameters:,}", f"{counts.activations:,}", peak)
    return table


def _layer_table(name: str, counts: Counts) -> Table:
    from rich.table import Table

    table = Table("layer", "kind", title=name)
    for column in ("in", "out", "kernel", "size", "MAdds", "parameters"):
        table.add_column(column, justify="right")
    for layer in counts.layers:
        kernel = f"{layer.kernel_size}×{layer.kernel_size}" if layer.kernel_size else ""
        table.add_row(
            layer.name, layer.kind, str(layer.in_channels), str(layer.out_channels), kernel,
            f"{layer.in_size}→{layer.out_size}", f"{layer.madds:,}", f"{layer.parameters:,}",
        )  # fmt: skip
    return table


def _check(counted: Sequence[tuple[str, Counts]]) -> None:
    from mnv3search.network.check import fvcore_madds

    for name, counts in counted:
        other = fvcore_madds(counts.architecture)
        if other != counts.madds:
            raise click.ClickException(f"{name}: {counts.madds:,} MAdds here, {other:,} by fvcore; please report this")
        click.echo(f"{name}: fvcore counts the same {other:,} MAdds", err=True)
