"""``mnv3search evaluate`` and ``predict``: a trained network on labelled images, and on single ones."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv3search.cli.options import on_threads
from mnv3search.cli.output import examples, json_option, print_json, shown
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.export.predictor import Prediction, Predictor
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
def evaluate_command(run: str, weights: str | None, data: str, batch_size: int, as_json: bool) -> None:
    """Evaluate a trained network on labelled images.

    RUN is the folder of a training or of a pruning, a trained network's .safetensors file, or an exported .onnx, which
    then runs in onnxruntime. A NETWORK has --weights FILE; its logits are those of the images' classes in the order of
    their sorted folders, as ImageNet's are. Prints top-1, top-5 (of 6 classes and more), loss, the accuracy of every
    class and the most frequent confusions.
    """
    from mnv3search.export.predictor import evaluate_predictor, load_predictor, unseen
    from mnv3search.training.data.open_data import open_images

    model = load_predictor(run, weights, data)
    with ProgressLine(quiet=as_json) as progress:
        progress.stage(f"scanning the images of {data}")
        images = open_images(
            data, model.classes, scan=True, on_fault=progress.note,
            progress=lambda done, total: progress.advance(done, "images", total),
        )  # fmt: skip
        images, note = unseen(model, images)
        progress.stage(f"evaluating {len(images)} images", len(images))
        found = evaluate_predictor(
            model, images, batch_size=batch_size, progress=lambda done, _: progress.advance(done)
        )
    if as_json:
        print_json({**_metrics_mapping(found, model), "note": note})
    else:
        _show_metrics(found, model, data, note)


def _metrics_mapping(found: Metrics, model: Predictor) -> dict[str, object]:
    return {
        "top1": found.top1, "top5": found.top5, "loss": found.loss, "images": found.images,
        "images_per_second": found.images / found.seconds,
        "class_accuracy": dict(zip(model.classes, found.class_accuracy.tolist(), strict=True)),
        "confusions": [
            {"true": model.classes[true], "said": model.classes[predicted], "images": count}
            for true, predicted, count in found.worst_confusions(SHOWN_CONFUSIONS)
        ],
        "confusion": found.confusion.tolist() if found.classes <= MAX_IN_MATRIX else None,
    }  # fmt: skip


def _show_metrics(found: Metrics, model: Predictor, data: str, note: str | None) -> None:
    from rich.markup import escape

    from mnv3search.cli.console import new_table, stdout_console
    from mnv3search.training.evaluation import MIN_TOP5_CLASSES
    from mnv3search.training.progress import rate_text

    console = stdout_console()
    cells = {"top-1": f"{found.top1:.2f} %", "top-5": f"{found.top5:.2f} %", "loss": f"{found.loss:.3f}"}
    if len(model.classes) < MIN_TOP5_CLASSES:
        del cells["top-5"]
    cells["images/s"] = rate_text(found.images / found.seconds)
    table = new_table("images", figures=list(cells), title=f"On {data}")
    table.add_row(f"{found.images:,}", *cells.values())
    console.print(table)
    classes = new_table("class", figures=("images", "recognised", "most often taken for"))
    counts = found.class_images
    shares = found.class_accuracy.tolist()
    order = sorted(range(len(shares)), key=lambda label: (math.isnan(shares[label]), shares[label]))
    for label in order[:SHOWN_CLASSES]:
        share = "–" if math.isnan(shares[label]) else f"{shares[label]:.1f} %"
        classes.add_row(
            escape(model.classes[label]), f"{counts[label]:,}", share, escape(_mistake(found, model, label))
        )
    console.print(classes)
    if len(order) > SHOWN_CLASSES:
        console.print(f"the {SHOWN_CLASSES} worst of {len(order)} classes; --json gives all")
    for true, predicted, count in found.worst_confusions(SHOWN_CONFUSIONS):
        console.say(f"• {model.classes[true]} taken for {model.classes[predicted]}: {count} of {counts[true]} images")
    if note is not None:
        console.say(f"• {note}")


def _mistake(found: Metrics, model: Predictor, label: int) -> str:
    return " ".join(f"{model.classes[predicted]} ({count})" for _, predicted, count in found.worst_confusions(1, label))


EXIT_SOME_FAILED = 2


@click.command(
    "predict",
    epilog=examples(
        "mnv3search predict runs/2026-01-31-train-best rose.jpg daisy.jpg --picture guesses.png",
        "mnv3search predict best_int8.onnx photos/ --top 3 --json",
        "mnv3search predict mobilenet_v3_large --weights mobilenet_v3_large.pth --data imagenet/val cat.jpg",
    ),
)
@click.argument("run", metavar="RUN|NETWORK")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--weights", metavar="FILE", help="Of a NETWORK: torchvision's or timm's.")
@click.option("--data", metavar="DATA", help="With --weights: images of the same classes, for their names.")
@click.option("--top", type=click.IntRange(1, 100), default=5, show_default=True, help="Classes for each image.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
    help="Draw the images with their classes (the first 24).",
)  # fmt: skip
@json_option
def predict_command(
    run: str, images: tuple[str, ...], weights: str | None, data: str | None, top: int, picture: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Predict the classes of images.

    RUN is the folder of a training or of a pruning, a trained network's .safetensors file, or an exported .onnx, which
    then runs in onnxruntime with the class names that it carries. A NETWORK has --weights FILE; its logits get the
    names of --data's classes in the order of their sorted folders, as ImageNet's are, and numbers without data. Each
    IMAGE is a file, a folder or a pattern. What cannot be read, or matches no image, gets a line on stderr and exit
    code 2 at the end; the others are predicted.
    """
    from mnv3search.export.predictor import image_files, load_predictor, predict
    from mnv3search.report.predictions import MAX_DRAWN

    if picture is not None and picture.suffix.lower() != ".png":
        raise click.UsageError(f"--picture {picture} must end in .png")
    if data is not None and weights is None:
        raise click.UsageError("--data names the classes of --weights; add --weights, or leave --data out")
    predictor = load_predictor(run, weights, data)
    missing: list[str] = []
    files = image_files(images, missing.append)
    done: list[Prediction] = []
    drawn = 0 if picture is None else MAX_DRAWN
    with ProgressLine(quiet=as_json) as progress:
        progress.stage("predicting", len(files))
        for prediction in predict(predictor, files, top):
            keep = prediction.pixels is not None and drawn > 0  # the pixels of all would fill the memory
            drawn -= keep
            done.append(prediction if keep else replace(prediction, pixels=None))
            progress.advance(len(done))
    if as_json:
        print_json({"predictions": [_prediction_mapping(one) for one in done]})
    else:
        _show_predictions(done)
    failed = [*missing, *(one.error for one in done if one.error is not None)]
    for error in failed:
        sys.stderr.write(f"error: {shown(' '.join(error.split()))}\n")
    if picture is not None and any(one.error is None for one in done):
        _draw(done, picture)
    if failed:
        raise click.exceptions.Exit(EXIT_SOME_FAILED)


def _draw(done: list[Prediction], picture: Path) -> None:
    from mnv3search.report.predictions import PredictedImage, draw_predictions

    pictures = [
        PredictedImage(str(one.file.name), one.pixels, tuple((guess.name, guess.probability) for guess in one.guesses))
        for one in done
        if one.pixels is not None
    ]
    lacking = draw_predictions(pictures, picture, more=sum(one.error is None for one in done) - len(pictures))
    if lacking:
        some = f"{shown(lacking[:10])}{'…' if len(lacking) > 10 else ''}"
        sys.stderr.write(f"the picture's font lacks {some}: drawn as boxes; what is printed has the whole names\n")


def _prediction_mapping(one: Prediction) -> dict[str, object]:
    found: dict[str, object] = {"file": str(one.file)}
    if one.error is not None:
        return {**found, "error": one.error}
    return {**found, "classes": [{"name": guess.name, "probability": guess.probability} for guess in one.guesses]}


def _show_predictions(done: list[Prediction]) -> None:
    from rich.markup import escape

    from mnv3search.cli.console import new_table, stdout_console

    table = new_table("image", "class", figures=("probability",))
    for one in done:
        for rank, guess in enumerate(one.guesses):
            name = escape(str(one.file)) if rank == 0 else ""
            table.add_row(
                name, escape(guess.name), f"{100 * guess.probability:.1f} %", end_section=one.guesses[-1] is guess
            )
    if table.row_count:
        stdout_console().print(table)
