"""``mnv3search evaluate``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from mnv3search.cli.output import examples, json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine
from mnv3search.cli.threads_option import on_threads

if TYPE_CHECKING:
    from mnv3search.export.predictor import Predictor
    from mnv3search.training.evaluation import Metrics

SHOWN_CLASSES = 40
SHOWN_CONFUSIONS = 5
MAX_IN_MATRIX = 1000  # classes up to which the JSON has every pair of them


@click.command(
    "evaluate",
    epilog=examples(
        "mnv3search evaluate runs/2026-01-31-train-best --data flowers/val",
        "mnv3search evaluate best_int8.onnx --data cifar10.zip:test --json",
        "mnv3search evaluate mobilenet_v3_large --weights mobilenet_v3_large.pth --data imagenet/val",
    ),
)
@click.argument("run", metavar="RUN|NETWORK")
@click.option("--weights", metavar="FILE", help="Of a NETWORK: torchvision's or timm's.")
@click.option(
    "--data", required=True, metavar="DATA", help="A folder of classes, or data and a split: cifar10.zip:test"
)
@click.option(
    "--batch-size", type=click.IntRange(1, 65536), default=256, show_default=True, help="Images at a time, at most."
)
@json_option
@on_threads()
def command(run: str, weights: str | None, data: str, batch_size: int, as_json: bool) -> None:
    """Judge a trained network on labelled images.

    RUN is the folder of a training or of a pruning, a trained network's .safetensors file, or an exported .onnx, which
    then runs in onnxruntime. A NETWORK has --weights FILE; its logits are those of the images' classes in the order of
    their sorted folders, as ImageNet's are. Prints top-1, top-5 (of 6 classes and more), loss, the accuracy of every
    class and the most frequent confusions.
    """
    from mnv3search.export.predictor import evaluate_predictor, unseen
    from mnv3search.training.data.open_data import open_images

    model = _model(run, weights, data)
    with ProgressLine(quiet=as_json) as progress:
        progress.stage(f"looking at the images of {data}")
        images = open_images(
            data, model.classes, scan=True, on_fault=progress.note,
            progress=lambda done, total: progress.advance(done, "images", total),
        )  # fmt: skip
        images, note = unseen(model, images)
        progress.stage(f"judging {len(images)} images", len(images))
        found = evaluate_predictor(
            model, images, batch_size=batch_size, progress=lambda done, _: progress.advance(done)
        )
    if as_json:
        print_json({**_mapping(found, model), "note": note})
    else:
        _show(found, model, data)
        if note is not None:
            stdout_console().print(f"• {note}", markup=False, highlight=False)


def _model(run: str, weights: str | None, data: str) -> Predictor:
    from mnv3search.export.predictor import NetworkPredictor, load_predictor

    if weights is None:
        return load_predictor(run)
    from mnv3search.training.data.open_data import open_images
    from mnv3search.training.trained import check_weights, with_weights

    check_weights(run, weights)  # what does not fit is said before the images' folders are listed
    return NetworkPredictor(with_weights(run, weights, open_images(data).classes))


def _mapping(found: Metrics, model: Predictor) -> dict[str, object]:
    return {
        "top1": found.top1, "top5": found.top5, "loss": found.loss, "images": found.images,
        "images_per_second": found.images / found.seconds,
        "class_accuracy": dict(zip(model.classes, found.class_accuracy.tolist(), strict=True)),
        "confusions": [
            {"true": model.classes[true], "said": model.classes[said], "images": count}
            for true, said, count in found.worst_confusions(SHOWN_CONFUSIONS)
        ],
        "confusion": found.confusion.tolist() if found.classes <= MAX_IN_MATRIX else None,
    }  # fmt: skip


def _show(found: Metrics, model: Predictor, data: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mnv3search.training.evaluation import MIN_TOP5_CLASSES
    from mnv3search.training.progress import rate_text

    console = stdout_console()
    table = Table("images", title=f"On {escape(data)}")
    cells = {"top-1": f"{found.top1:.2f} %", "top-5": f"{found.top5:.2f} %", "loss": f"{found.loss:.3f}"}
    if len(model.classes) < MIN_TOP5_CLASSES:
        del cells["top-5"]
    cells["images/s"] = rate_text(found.images / found.seconds)
    for column in cells:
        table.add_column(column, justify="right")
    table.add_row(f"{found.images:,}", *cells.values())
    console.print(table)
    classes = Table("class")
    for column in ("images", "recognised", "most often taken for"):
        classes.add_column(column, justify="right")
    counts = found.class_images
    shares = found.class_accuracy.tolist()
    order = sorted(range(len(shares)), key=lambda place: (math.isnan(shares[place]), shares[place]))
    for place in order[:SHOWN_CLASSES]:
        share = "–" if math.isnan(shares[place]) else f"{shares[place]:.1f} %"
        classes.add_row(
            escape(model.classes[place]), f"{counts[place]:,}", share, escape(_mistake(found, model, place))
        )
    console.print(classes)
    if len(order) > SHOWN_CLASSES:
        console.print(f"the {SHOWN_CLASSES} worst of {len(order)} classes; --json gives all")
    for true, said, count in found.worst_confusions(SHOWN_CONFUSIONS):
        line = f"• {model.classes[true]} taken for {model.classes[said]}: {count} of {counts[true]} images"
        console.print(line, markup=False, highlight=False)


def _mistake(found: Metrics, model: Predictor, place: int) -> str:
    return " ".join(f"{model.classes[said]} ({count})" for _, said, count in found.worst_confusions(1, place))
