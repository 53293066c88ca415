"""``mnv3search count``, ``spaces`` and ``tables``: exact counts, the search spaces, and the papers' tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.errors import ArchitectureError
from mnv3search.reading import parse_json, read_bounded, utf8

if TYPE_CHECKING:
    from rich.table import Table

    from mnv3search.cost import Counts
    from mnv3search.graph.model_file import OnnxModel
    from mnv3search.space import SearchSpace

MAX_LIST_BYTES = 64_000_000
LAYER = (
    "name", "kind", "madds", "parameters", "activations", "in_channels", "out_channels", "kernel_size", "stride",
    "in_size", "out_size",
)  # fmt: skip


@click.command(
    "count",
    epilog=examples(
        "mnv3search count mobilenet_v3_large mobilenet_v2@0.75/192",
        "mnv3search count best.json runs/flowers --layers",
        "mnv3search count flowers.onnx flowers_int8.onnx",
        "mnv3search count mnv3_small_32 --check",
        "mnv3search count --list networks.txt --json",
    ),
)
@click.argument("networks", nargs=-1, metavar="NETWORK...")
@click.option(
    "--list", "listed", type=click.Path(path_type=Path), metavar="FILE",
    help="Count the networks of a file as well: one a line, or a JSON list of them.",
)  # fmt: skip
@click.option("--layers", is_flag=True, help="Show every layer.")
@click.option("--check", is_flag=True, help="Count again with fvcore (needs torch, slower) and compare.")
@json_option
def count_command(networks: tuple[str, ...], listed: Path | None, layers: bool, check: bool, as_json: bool) -> None:
    """MAdds, parameters, activations, peak memory.

    Exact, by layer, without torch.

    A NETWORK is NAME, NAME@WIDTH, NAME/RESOLUTION, NAME@WIDTH/RESOLUTION (with :torchvision after the width for that
    scaling rule), where NAME is a published network's, or a search space's for its reference; a .json or .safetensors
    file; or the folder of a run, a training or a pruning. Or it is an .onnx file: then its graph is counted, in which
    norms are folded into convolutions.
    """
    from mnv3search.cli.console import stdout_console
    from mnv3search.cost import Counts

    names = networks if listed is None else (*networks, *_names(listed))
    if not names:
        raise click.UsageError("name a network, or a file of them with --list FILE")
    totals = [_totals(name, found) for name, found in _counted(names, check=check)]  # without layers: they are many
    if not as_json:
        console = stdout_console()
        console.print(_totals_table(totals))
        for name, found in _counted(names) if layers else ():
            if isinstance(found, Counts):
                console.print(_layer_table(name, found))
    elif not layers:
        print_json({"networks": totals})
    else:
        click.echo('{"networks": [', nl=False)
        for position, (name, found) in enumerate(_counted(names)):
            entry = _totals(name, found)
            if isinstance(found, Counts):
                entry["layers"] = [{figure: getattr(layer, figure) for figure in LAYER} for layer in found.layers]
            click.echo(f"{', ' if position else ''}{json.dumps(entry)}", nl=False)
        click.echo("]}")


def _names(path: Path) -> list[str]:
    """The networks in a file."""
    remedy = "give a file with one network a line, or a JSON list of them"
    try:
        text = utf8(read_bounded(path, MAX_LIST_BYTES))
        names = parse_json(text) if text.lstrip().startswith("[") else [line.strip() for line in text.splitlines()]
    except OSError as error:
        raise ArchitectureError(f"cannot read {path}: {error.strerror or error}; {remedy}") from None
    except ValueError as error:
        raise ArchitectureError(f"cannot read {path}: {error}; {remedy}") from None
    for name in names:
        if not isinstance(name, str):
            raise ArchitectureError(f"{path} lists {str(name)[:60]}, which is no name; {remedy}")
    return [name for name in names if name and not name.startswith("#")]


def _counted(names: Sequence[str], *, check: bool = False) -> Iterator[tuple[str, Counts | OnnxModel]]:
    from mnv3search.cost import count
    from mnv3search.graph.model_file import is_model_file, read_model
    from mnv3search.naming import parse_network

    for name in names:
        if is_model_file(name):
            yield name, read_model(name)
            continue
        counts = count(parse_network(name))
        if check:
            _check_counts(name, counts)
        yield name, counts


def _totals(name: str, found: Counts | OnnxModel) -> dict[str, Any]:
    """The counts of one network; an ONNX file's have no peak memory."""
    figures = ("madds", "parameters", "activations", "peak_memory_bytes")
    return {"name": name} | {figure: getattr(found, figure) for figure in figures if hasattr(found, figure)}


def _totals_table(totals: Sequence[dict[str, Any]]) -> Table:
    from mnv3search.cli.console import new_table

    table = new_table(
        "network", figures=("MAdds", "parameters", "activations", "peak memory"),
        title="Counts (multiply-adds of convolutions and linear layers, batch 1)",
    )  # fmt: skip
    for found in totals:
        peak = f"{found['peak_memory_bytes'] / 2**20:.2f} MiB" if "peak_memory_bytes" in found else "–"
        cells = (f"{found[figure]:,}" for figure in ("madds", "parameters", "activations"))
        table.add_row(found["name"], *cells, peak)
    return table


def _layer_table(name: str, counts: Counts) -> Table:
    from mnv3search.cli.console import new_table

    table = new_table("layer", "kind", figures=("in", "out", "kernel", "size", "MAdds", "parameters"), title=name)
    for layer in counts.layers:
        kernel = f"{layer.kernel_size}×{layer.kernel_size}" if layer.kernel_size else ""
        table.add_row(
            layer.name, layer.kind, str(layer.in_channels), str(layer.out_channels), kernel,
            f"{layer.in_size}→{layer.out_size}", f"{layer.madds:,}", f"{layer.parameters:,}",
        )  # fmt: skip
    return table


def _check_counts(name: str, counts: Counts) -> None:
    from mnv3search.network.build import fvcore_madds

    other = fvcore_madds(counts.architecture)
    if other != counts.madds:
        raise click.ClickException(f"{name}: {counts.madds:,} MAdds here, {other:,} by fvcore; please report this")
    click.echo(f"{name}: fvcore counts the same {other:,} MAdds", err=True)


@click.command(
    "spaces",
    epilog=examples(
        "mnv3search spaces",
        "mnv3search spaces mnv3_large",
        "mnv3search spaces my.yaml --json",
    ),
)
@click.argument("names", nargs=-1, metavar="[SPACE]...")
@json_option
def spaces_command(names: tuple[str, ...], as_json: bool) -> None:
    """The search spaces: what they hold, and their defaults.

    With a SPACE (a name or a YAML file), its choices one by one; a file is validated.
    """
    from mnv3search.space import load_space, space_names

    spaces = [load_space(name) for name in names or space_names()]
    if as_json:
        print_json({"spaces": [_space_mapping(space) for space in spaces]})
        return
    from mnv3search.cli.console import new_table, stdout_console

    console = stdout_console()
    table = new_table("space", "networks", "reference", "device", "evaluator", "what it is", title="Search spaces")
    for space in spaces:
        evaluator = space.evaluator or "none: give --evaluator"
        table.add_row(space.name, f"{space.size:.3g}", space.reference_label, space.device, evaluator,
                      space.description)  # fmt: skip
    console.print(table)
    for space in spaces if names else ():
        choices = new_table("choice", "values", title=f"Choices of {space.name}")
        for parameter in space.parameters:
            choices.add_row(parameter.name, ", ".join(map(str, parameter.choices)))
        console.print(choices)


def _space_mapping(space: SearchSpace) -> dict[str, object]:
    return {
        "name": space.name, "description": space.description, "size": str(space.size),
        "reference": space.reference_name, "device": space.device, "evaluator": space.evaluator,
        "parameters": {p.name: list(p.choices) for p in space.parameters},
    }  # fmt: skip


@click.command(
    "tables",
    epilog=examples(
        "mnv3search tables",
        "mnv3search tables --json",
    ),
)
@json_option
def tables_command(as_json: bool) -> None:
    """The papers' tables, with our counts.

    Where a printed count differs, the reason is said; where none is known, that is said too.
    """
    from mnv3search.cli.console import stdout_console
    from mnv3search.report.tables import published_tables

    tables = published_tables()
    if as_json:
        print_json({"tables": [table.to_mapping() for table in tables]})
        return
    console = stdout_console()
    for table in tables:
        console.print(table.to_rich())
