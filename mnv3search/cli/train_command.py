"""``mnv3search train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mnv3search.cli.output import json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.training.loop import TrainingResult
    from mnv3search.training.session import TrainingRequest, TrainingSession

MAY_CHANGE = frozenset({"resume", "workers", "as_json"})  # what a resumed training may be told anew


@click.command(
    "train",
    epilog="Examples:  mnv3search train mobilenet_v3_small --data flowers/ --weights mobilenet_v3_small.pth "
    "--freeze features  |  mnv3search train best.json --data imagenet/ --recipe paper  |  "
    "torchrun --nproc-per-node 8 -m mnv3search train best.json --data imagenet/ --recipe paper --out runs/best  |  "
    "mnv3search train --resume runs/2026-01-31-train-best",
)
@click.argument("network", required=False)
@click.option("--data", metavar="DATA", help="Image folder, zip archive of one, or torchvision:NAME:FOLDER.")
@click.option("--weights", metavar="FILE|RUN", help="Begin with these: torchvision's, timm's, or a trained network.")
@click.option(
    "--freeze", type=click.Choice(["none", "features"]), default="none", show_default=True,
    help="features: train a new classifier alone; norms keep their statistics.",
)  # fmt: skip
@click.option(
    "--recipe", metavar="NAME|FILE",
    help="paper, finetune, transfer, small_32 or a YAML file.  [default: transfer with --freeze features, finetune "
    "with --weights, small_32 up to 64 pixels, else paper]",
)  # fmt: skip
@click.option("--epochs", type=int, help="In place of the recipe's.")
@click.option("--batch-size", type=int, help="In place of the recipe's; the learning rate is scaled with it.")
@click.option("--learning-rate", type=float, help="In place of the recipe's, for this batch size.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="In place of the recipe's.")
@click.option("--resolution", type=int, help="Of the images, pixels.  [default: the network's]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random.")
@click.option("--teacher", metavar="RUN", help="Learn from this trained network beside the labels.")
@click.option("--workers", type=click.IntRange(0, 64), help="Threads that decode large images.  [default: the cores]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/<date>-train-<network>]")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with an interrupted training, as it was begun.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's events into the folder.")
@json_option
def command(network: str | None, out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Train a network on your images.

    NETWORK is a published network's name, such as mobilenet_v2@0.75, a search space's for its reference, such as
    mnv3_small_32@0.75, a .json file or a run's folder. Its number of classes is that of the images. The best epoch's
    weights are kept with the architecture, the names of the classes and the preprocessing in one file.
    """
    from mnv3search.runs.environment import describe_environment
    from mnv3search.training.devices import is_main_process
    from mnv3search.training.session import begin, carry_out, take_up

    with ProgressLine(quiet=as_json or not is_main_process()) as progress:
        if resume is not None:
            _only_resume()
            session = take_up(resume, progress, workers=options["workers"])
        else:
            session = begin(_request(network, options), out, describe_environment(), progress)
        result = carry_out(session, progress)
    if is_main_process():
        show(session, result, as_json=as_json)


def _only_resume() -> None:
    """Refuse what was begun with and cannot be changed on the way, rather than leave it unheard."""
    context = click.get_current_context()
    given = [
        parameter.human_readable_name if isinstance(parameter, click.Argument) else parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in MAY_CHANGE
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--resume goes on with what the training was begun with; leave {', '.join(given)} away")


def _request(network: str | None, options: dict[str, Any]) -> TrainingRequest:
    from mnv3search.training.session import TrainingRequest

    if network is None or options["data"] is None:
        raise click.UsageError("give a NETWORK and --data, or --resume DIR")
    return TrainingRequest(network=network, **options)


def show(session: TrainingSession, result: TrainingResult, *, as_json: bool) -> None:
    """The final table, where the files are and what to do next; or one JSON object."""
    from mnv3search.training.trained import BEST

    folder = session.path
    best = max(result.history, key=lambda record: record.rank)
    seconds = sum(record.seconds for record in result.history)
    speed = result.images / seconds if seconds else 0.0
    if as_json:
        print_json(
            {
                "folder": str(folder), "trained": str(folder / BEST), "best": best.to_mapping(),
                "classes": list(result.trained.classes), "images_per_second": speed, "seconds": result.seconds,
                "history": [record.to_mapping() for record in result.history],
            }
        )  # fmt: skip
        return
    from rich.markup import escape
    from rich.table import Table

    from mnv3search.training.progress import rate_text

    table = Table("best epoch", title=f"Trained on {escape(session.settings.data)}")
    for column in ("validation top-1", "top-5", "loss", "epochs", "images/s", "training"):
        table.add_column(column, justify="right")
    table.add_row(
        str(best.epoch), f"{best.val_top1:.2f} %", f"{best.val_top5:.2f} %", f"{best.val_loss:.3f}",
        str(len(result.history)), rate_text(speed), f"{seconds:.0f} s",
    )  # fmt: skip
    console = stdout_console()
    console.print(table)
    lines = (
        f"network: {folder / BEST}; every epoch: {folder / 'history.csv'}",
        f"next:  mnv3search evaluate {folder} --data {_held(session)}",
        f"       mnv3search predict {folder} IMAGE...",
        f"       mnv3search export {folder} --format onnx",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _held(session: TrainingSession) -> str:
    """What the network was not trained on, as ``evaluate`` takes it."""
    return f"{session.settings.data}:{'val' if session.data.test is None else 'test'}"
