"""``mnv3search predict``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv3search.cli.output import examples, json_option, print_json, shown, stdout_console
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.export.predictor import Prediction

EXIT_SOME_FAILED = 2


@click.command(
    "predict",
    epilog=examples(
        "mnv3search predict runs/2026-01-31-train-best rose.jpg daisy.jpg --picture guesses.png",
        "mnv3search predict best_int8.onnx photos/ --top 3 --json",
    ),
)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1, 100), default=5, show_default=True, help="Classes for each image.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
    help="Draw the images with their classes (the first 24).",
)  # fmt: skip
@json_option
def command(run: Path, images: tuple[str, ...], top: int, picture: Path | None, as_json: bool) -> None:
    """Say what is on images.

    RUN is the folder of a training or of a pruning, a trained network's .safetensors file, or an exported .onnx, which
    then runs in onnxruntime with the class names that it carries. Each IMAGE is a file, a folder or a pattern. What
    cannot be read, or matches no image, gets a line on stderr and exit code 2 at the end; the others are predicted.
    """
    from mnv3search.export.predictor import image_files, load_predictor, predict
    from mnv3search.report.predictions import MAX_DRAWN

    if picture is not None and picture.suffix.lower() != ".png":
        raise click.UsageError(f"--picture {picture} must end in .png")
    predictor = load_predictor(run)
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
        print_json({"predictions": [_mapping(one) for one in done]})
    else:
        _show(done)
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


def _mapping(one: Prediction) -> dict[str, object]:
    found: dict[str, object] = {"file": str(one.file)}
    if one.error is not None:
        return {**found, "error": one.error}
    return {**found, "classes": [{"name": guess.name, "probability": guess.probability} for guess in one.guesses]}


def _show(done: list[Prediction]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("image", "class")
    table.add_column("probability", justify="right")
    for one in done:
        for place, guess in enumerate(one.guesses):
            name = escape(str(one.file)) if place == 0 else ""
            table.add_row(
                name, escape(guess.name), f"{100 * guess.probability:.1f} %", end_section=one.guesses[-1] is guess
            )
    if table.row_count:
        stdout_console().print(table)
