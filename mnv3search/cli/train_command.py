"""``mnv3search train``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli.options import only_resumed, threads_option
from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine
from mnv3search.threads import default_threads, training_threads

if TYPE_CHECKING:
    from mnv3search.training.folder import TrainingFolder
    from mnv3search.training.loop import TrainingResult
    from mnv3search.training.progress import TrainingProgress
    from mnv3search.training.session import TrainingRequest


@click.command(
    "train",
    epilog=examples(
        "mnv3search train mobilenet_v3_small --data flowers/ --weights mobilenet_v3_small.pth --freeze features",
        "mnv3search train best.json --data imagenet/ --recipe paper",
        "torchrun --nproc-per-node 8 -m mnv3search train best.json --data imagenet/ --recipe paper --out runs/best",
        "mnv3search train --resume runs/2026-01-31-train-best",
    ),
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
    "with --weights, else small_32 at a resolution of up to 64 pixels, whatever the images have, and paper above]",
)  # fmt: skip
@click.option("--epochs", type=int, help="In place of the recipe's.")
@click.option("--batch-size", type=int, help="In place of the recipe's; the learning rate is scaled with it.")
@click.option("--learning-rate", type=float, help="In place of the recipe's, for this batch size.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="In place of the recipe's.")
@click.option("--resolution", type=int, help="Pixels that images are resized to, a side.  [default: the network's own]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random.")
@click.option("--teacher", metavar="RUN", help="Learn from this trained network as well as from the labels.")
@click.option("--workers", type=click.IntRange(0, 64), help="Threads that decode large images.  [default: the cores]")
@threads_option()
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/<date>-train-<network>]")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR",
    help="Resume an interrupted training with its own settings; --data says where its images are, if they moved.",
)  # fmt: skip
@click.option(
    "--held-out", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
    help="Share of the training images to leave out, for netadapt to score its proposals on later.",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's events into the folder.")
@json_option
def train_command(network: str | None, out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Train a network on your images.

    NETWORK is a published network's name, such as mobilenet_v2@0.75, a search space's for its reference, such as
    mnv3_small_32@0.75, a .json file or a run's folder. Its number of classes is that of the images. The best epoch's
    weights are kept with the architecture, the names of the classes and the preprocessing in one file.
    """
    from mnv3search.training.devices import is_main_process

    if resume is not None:
        only_resumed("workers", "train_threads")
    options["threads"] = _threads(options.pop("train_threads"), resume)
    with _on(options["threads"]), ProgressLine(quiet=as_json or not is_main_process()) as progress:
        from mnv3search.training.session import start_training  # torch reads then on how many threads it is

        if resume is not None:
            path, result = resume, _resumed(resume, progress, options["workers"], options["data"])
        else:
            path, result = start_training(_request(network, options), out, progress)
    if is_main_process():
        show(path, result, as_json=as_json)


def _resumed(path: Path, progress: TrainingProgress, workers: int | None, data: str | None) -> TrainingResult:
    """The training in ``path``, resumed, or the result of a finished one."""
    from mnv3search.training.session import finished_training, resume_training

    done = finished_training(path)
    if done is not None:
        progress.note(f"the training in {path} was finished already: nothing is trained, and this is its result")
        return done
    return resume_training(path, progress, workers, data)


def _threads(asked: int | None, resume: Path | None) -> int | None:
    """Threads of a training: those that it was begun on, for the same weights; None where a launcher decides."""
    from mnv3search.training.devices import process_count
    from mnv3search.training.folder import TrainingFolder

    begun = None if resume is None else TrainingFolder.open(resume).settings.threads
    return asked or begun or (None if process_count() > 1 else default_threads())


def _on(threads: int | None) -> AbstractContextManager[None]:
    return nullcontext() if threads is None else training_threads(threads)


def _request(network: str | None, options: dict[str, Any]) -> TrainingRequest:
    from mnv3search.training.session import TrainingRequest

    if network is None or options["data"] is None:
        raise click.UsageError("give a NETWORK and --data, or --resume DIR")
    return TrainingRequest(network=network, **options)


def show(folder: Path, result: TrainingResult, *, as_json: bool) -> None:
    """The final table, where the files are and what to do next; or one JSON object."""
    from mnv3search.training.trained import BEST

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
    from mnv3search.cli.console import new_table, stdout_console
    from mnv3search.training.evaluation import MIN_TOP5_CLASSES
    from mnv3search.training.folder import TrainingFolder
    from mnv3search.training.progress import rate_text

    opened = TrainingFolder.open(folder)
    cells = {
        "validation top-1": f"{best.val_top1:.2f} %", "top-5": f"{best.val_top5:.2f} %", "loss": f"{best.val_loss:.3f}",
        "epochs": str(len(result.history)), "images/s": rate_text(speed), "training": f"{seconds:.0f} s",
    }  # fmt: skip
    if len(result.trained.classes) < MIN_TOP5_CLASSES:
        del cells["top-5"]
    table = new_table("best epoch", figures=list(cells), title=f"Trained on {_from_here(opened.settings.data)}")
    table.add_row(str(best.epoch), *cells.values())
    console = stdout_console()
    console.print(table)
    console.say(*_next_lines(opened, folder / BEST))


def _next_lines(folder: TrainingFolder, trained: Path) -> list[str]:
    """Where the files are, and the next commands, as they are typed."""
    from shlex import quote

    path, data, images = quote(str(folder.path)), _from_here(folder.settings.data), folder.manifest.get("images")
    split = "test" if isinstance(images, dict) and images.get("test") else "val"  # what it was not trained on
    return [
        f"network: {trained}; every epoch: {folder.path / 'history.csv'}",
        f"next:  mnv3search evaluate {path} --data {quote(f'{data}:{split}')}",
        f"       mnv3search predict {path} IMAGE...",
        f"       mnv3search export {path} --data {quote(data)}",
    ]


def _from_here(data: str) -> str:
    """The data's path, as short as it can be typed in this folder."""
    return data.removeprefix(f"{Path.cwd()}/")
