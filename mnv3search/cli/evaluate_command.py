"""``mnv3search evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv3search.cli.output import json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.training.judge import Judgement
    from mnv3search.training.trained import TrainedNetwork

SHOWN_CLASSES = 40
SHOWN_CONFUSIONS = 5


@click.command(
    "evaluate",
    epilog="Examples:  mnv3search evaluate runs/2026-01-31-train-best --data flowers/val  |  "
    "mnv3search evaluate best.safetensors --data cifar10.zip:test --json",
)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DATA", help="A folder of classes, or data and a split: cifar10.zip:test"
)
@click.option("--batch-size", type=click.IntRange(1, 65536), default=256, show_default=True, help="Images at a time.")
@json_option
def command(run: Path, data: str, batch_size: int, as_json: bool) -> None:
    """Judge a trained network on labelled images.

    RUN is the folder of a training, or a trained network's .safetensors file. Prints top-1, top-5, loss, the accuracy
    of every class and the most frequent confusions.
    """
    from mnv3search.training.data.open_data import open_images
    from mnv3search.training.devices import judging_device
    from mnv3search.training.judge import judge
    from mnv3search.training.trained import load_trained

    trained = load_trained(run)
    with ProgressLine(quiet=as_json) as progress:
        progress.stage(f"looking at the images of {data}")
        images = open_images(
            data, trained.classes, scan=True, on_fault=progress.note,
            progress=lambda done, total: progress.advance(done, "images", total),
        )  # fmt: skip
        progress.stage(f"judging {len(images)} images", len(images))
        network = trained.network.to(judging_device())
        found = judge(
            network, images, trained.preprocessing, batch_size=batch_size,
            progress=lambda done, _: progress.advance(done),
        )  # fmt: skip
    if as_json:
        print_json(_mapping(found, trained))
    else:
        _show(found, trained, data)


def _mapping(found: Judgement, trained: TrainedNetwork) -> dict[str, object]:
    return {
        "top1": found.top1, "top5": found.top5, "loss": found.loss, "images": found.images,
        "images_per_second": found.images / found.seconds,
        "class_accuracy": dict(zip(trained.classes, found.class_accuracy.tolist(), strict=True)),
        "confusions": [
            {"true": trained.classes[true], "said": trained.classes[said], "images": count}
            for true, said, count in found.worst_confusions(SHOWN_CONFUSIONS)
        ],
        "confusion": found.confusion.tolist(),
    }  # fmt: skip


def _show(found: Judgement, trained: TrainedNetwork, data: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mnv3search.training.progress import rate_text

    console = stdout_console()
    table = Table("images", title=f"On {escape(data)}")
    for column in ("top-1", "top-5", "loss", "images/s"):
        table.add_column(column, justify="right")
    speed = found.images / found.seconds
    table.add_row(
        f"{found.images:,}", f"{found.top1:.2f} %", f"{found.top5:.2f} %", f"{found.loss:.3f}", rate_text(speed)
    )
    console.print(table)
    classes = Table("class")
    for column in ("images", "recognised", "most often taken for"):
        classes.add_column(column, justify="right")
    counts = found.confusion.sum(axis=1)
    shares = found.class_accuracy.tolist()
    order = sorted(range(len(shares)), key=lambda place: (math.isnan(shares[place]), shares[place]))
    for place in order[:SHOWN_CLASSES]:
        share = "–" if math.isnan(shares[place]) else f"{shares[place]:.1f} %"
        classes.add_row(
            escape(trained.classes[place]), f"{counts[place]:,}", share, escape(_mistake(found, trained, place))
        )
    console.print(classes)
    if len(order) > SHOWN_CLASSES:
        console.print(f"the {SHOWN_CLASSES} worst of {len(order)} classes; --json gives all")
    for true, said, count in found.worst_confusions(SHOWN_CONFUSIONS):
        line = f"• {trained.classes[true]} taken for {trained.classes[said]}: {count} of {counts[true]} images"
        console.print(line, markup=False, highlight=False)


def _mistake(found: Judgement, trained: TrainedNetwork, place: int) -> str:
    row = found.confusion[place].copy()
    row[place] = 0
    said = int(row.argmax())
    return f"{trained.classes[said]} ({row[said]})" if row[said] else ""
