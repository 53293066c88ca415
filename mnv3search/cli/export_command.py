"""``mnv3search export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli.output import examples, json_option, print_json
from mnv3search.cli.progress import ProgressLine

if TYPE_CHECKING:
    from mnv3search.export import Export, ExportSettings
    from mnv3search.latency.measured.whole_networks import Ratio
    from mnv3search.training.data.splits import DataSplits


@click.command(
    "export",
    epilog=examples(
        "mnv3search export runs/2026-01-31-train-best --data flowers/",
        "mnv3search export best.safetensors --int8 --data flowers/ --out flowers_int8.onnx",
        "mnv3search export best.safetensors --data flowers/ --with-preprocessing --batch dynamic",
        "mnv3search export mobilenet_v3_large --weights mobilenet_v3_large.pth --int8 --data imagenet/",
    ),
)
@click.argument("run", metavar="RUN|NETWORK")
@click.option("--weights", metavar="FILE", help="Of a NETWORK: torchvision's or timm's.")
@click.option(
    "--format", "format_", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Of the file."
)
@click.option("--int8", is_flag=True, help="In 8 bits, calibrated on training images of --data.")
@click.option(
    "--data", metavar="DATA",
    help="Data that it was trained on, train/ among it: the export is checked on its test or validation images.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE",
    help="[default: best.onnx, or best_int8.onnx, in the weights' folder]",
)  # fmt: skip
@click.option(
    "--batch", type=click.Choice(["1", "dynamic"]), default="1", show_default=True,
    help="Images in one call: one, as phones and their converters want it, or any number.",
)  # fmt: skip
@click.option(
    "--with-preprocessing", is_flag=True, help="Take uint8 pixels, (N, R, R, 3) RGB, and normalise in the graph."
)
@click.option(
    "--calibration", type=click.Choice(["minmax", "percentile", "entropy"]), default="minmax", show_default=True,
    help="With --int8: how the range of an activation is found.",
)  # fmt: skip
@click.option(
    "--calibration-images", type=click.IntRange(1, 10_000), default=128, show_default=True,
    help="With --int8: over so many training images.",
)  # fmt: skip
@click.option("--reduce-range", is_flag=True, help="With --int8: weights in 7 bits, for x86 processors without VNNI.")
@click.option(
    "--check-images", type=click.IntRange(0), default=500, show_default=True,
    help="Test or validation images that it is checked on; 0 takes all.",
)  # fmt: skip
@click.option("--timing/--no-timing", default=True, show_default=True, help="Time the file, whole, in onnxruntime.")
@json_option
def export_command(
    run: str, weights: str | None, data: str | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Write a trained network as a file for a device.

    RUN is the folder of a training or of a pruning, or a trained network's .safetensors file. A NETWORK has --weights
    FILE; its logits get the names of --data's classes in the order of their sorted folders, as ImageNet's are, and
    numbers without data. The class names, the preprocessing and the architecture travel in the file, and in a JSON file
    of its name. Before it is written it is compared with the network, on the test or validation images of --data or
    else on noise: one that differs is not written.
    """
    from mnv3search.export import export_network
    from mnv3search.training.trained import check_weights, load_trained, trained_file, with_weights

    settings = _settings(options)
    if weights is None:
        file = trained_file(run)
        trained = load_trained(file)
    else:
        file = Path(weights)
        check_weights(run, weights)  # what does not fit is refused before the data's folders are listed
    with ProgressLine(quiet=as_json) as progress:
        splits = None if data is None else _splits(data, progress)
        if weights is not None:
            trained = with_weights(run, weights, None if splits is None else splits.train.classes)
        target = out or file.with_name(f"{file.stem}{'_int8' if options['int8'] else ''}.onnx")
        done = export_network(trained, target, settings, data=splits, progress=progress)
    if as_json:
        print_json({"path": str(done.path), "description_path": str(done.description_path), **done.to_mapping()})
    else:
        _show(done)


def _splits(data: str, progress: ProgressLine) -> DataSplits:
    from mnv3search.training.data.open_data import open_data

    progress.stage(f"listing the images of {data}")
    return open_data(data, scan=False)  # the images that are taken are decoded later; no other is needed


def _settings(options: dict[str, Any]) -> ExportSettings:
    from mnv3search.export import ExportSettings
    from mnv3search.latency.runtimes.int8 import Quantisation

    quantisation = None
    if options["int8"]:
        quantisation = Quantisation(calibration=options["calibration"], reduce_range=options["reduce_range"])
    elif options["reduce_range"]:
        raise click.UsageError("--reduce-range is about 8 bits; add --int8")
    return ExportSettings(
        batch=options["batch"], with_preprocessing=options["with_preprocessing"], int8=quantisation,
        calibration_images=options["calibration_images"], check_images=options["check_images"],
        timed=options["timing"],
    )  # fmt: skip


def _show(done: Export) -> None:
    from mnv3search.cli.console import stdout_console
    from mnv3search.export.parity import RULES

    described, parity = done.description, done.parity
    side = described.preprocessing.resolution
    count = "1" if done.batch == "1" else "any number"
    entering = f"{side}, {side}, 3) uint8" if described.input == "uint8" else f"3, {side}, {side}) float32"
    size, classes = f"{done.bytes / 1e6:.2f} MB", f"{len(described.classes)} classes"
    lines = [
        f"{done.path}: {described.precision}, {size}, input ({count}, {entering}, {classes}",
        f"{done.description_path}: its classes, preprocessing, checks and times as JSON",
        f"checked on {parity.images:,} images ({parity.source}): the same class on {parity.agreement:.2f} %, logits "
        f"within {parity.max_difference:.2g} of their root mean square (all together {parity.rms_difference:.2g})",
        f"the rule that it had to pass: {RULES[parity.precision]}",
    ]
    if parity.network_top1 is not None and parity.model_top1 is not None:
        lines.append(
            f"top-1 there: network {parity.network_top1:.2f} %, file {parity.model_top1:.2f} % "
            f"({parity.model_top1 - parity.network_top1:+.2f} ± {parity.top1_error:.2f} points, one standard deviation)"
        )
    stdout_console().say(*lines, *_latency_lines(done))


def _latency_lines(done: Export) -> list[str]:
    found = done.latency
    if found is None:
        return []
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    times = "; ".join(f"{name} {one.latency_ms:.3f} ± {one.error_ms:.3f} ms" for name, one in found.models.items())
    ratio = "" if found.ratio is None else f"; int8 takes {_ratio_text(found.ratio)} of fp32's time"
    line = f"{found.runtime}, {threads}, batch 1, {found.rounds} calls in turn: {times}{ratio}"
    return [line] if found.disturbed is None else [line, found.disturbed]


def _ratio_text(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}, 95 %)"
