"""``mnv3search compare``."""

from __future__ import annotations

from pathlib import Path

import click

from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine
from mnv3search.runs.settings import DEVICE, EVALUATOR


@click.command(
    "compare",
    epilog=examples(
        "mnv3search compare runs/2026-01-31-mnv3_large-50ms mobilenet_v3_large mobilenet_v2",
        "mnv3search compare best.json mobilenet_v3_small --device pixel3 --out compared",
    ),
)
@click.argument("subjects", nargs=-1, required=True, metavar="RUN_OR_NETWORK...")
@click.option("--device", help=f"One device for all.  [default: the first run's, or {DEVICE}]")
@click.option("--evaluator", help=f"One evaluator for all.  [default: the first run's, or {EVALUATOR}]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("compare"), show_default=True,
    help="Where to draw, without its ending: .png and .svg are written.",
)  # fmt: skip
@json_option
def compare_command(
    subjects: tuple[str, ...], device: str | None, evaluator: str | None, out: Path, as_json: bool
) -> None:
    """Runs and networks on one plot, scored alike.

    A network is a published one's name, a search space's for its reference, a .json or .safetensors file, or the folder
    of a training or a pruning, of which the architecture counts: its accuracy is what the evaluator says.

    Figures of different devices or evaluators cannot be compared, so every network is scored anew.
    """
    from mnv3search.cli.console import stdout_console
    from mnv3search.report.plots import draw_comparison
    from mnv3search.runs.artifacts import network_mapping
    from mnv3search.runs.comparison import compared

    with ProgressLine(quiet=as_json) as progress:
        found = compared(subjects, device, evaluator, progress)
        png, svg = out.with_name(out.name + ".png"), out.with_name(out.name + ".svg")
        replaced = " (in place of earlier ones)" if png.exists() or svg.exists() else ""
        draw_comparison(
            found.groups, png, svg, x_label=found.x_label, y_label=found.y_label, title="Compared", fronts=found.fronts
        )
    if as_json:
        rows = [{"group": g, "name": n.name, **network_mapping(n)} for g, ns in found.groups.items() for n in ns]
        print_json({"device": found.device, "evaluator": found.evaluator, "networks": rows, "png": str(png)})
        return
    console = stdout_console()
    console.print(found.table())
    console.say(f"drawn: {png} and {svg}{replaced}")
