"""``mnv3search netadapt``: of a network, by an evaluator; of a trained network, by its accuracy on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli import options as opt
from mnv3search.cli.group import EXIT_BAD_INPUT
from mnv3search.cli.output import examples, print_json
from mnv3search.cli.progress import ProgressLine
from mnv3search.cli.run_command import start_or_resume
from mnv3search.runs.settings import DEVICE, EVALUATOR, PRUNING, PRUNING_DEVICE, RUN, is_trained

if TYPE_CHECKING:
    from mnv3search.runs.pruning_outcome import PruningOutcome
    from mnv3search.runs.settings import PruningSettings, RunSettings

TRAINED = (
    "data", "short_steps", "short_batch", "short_rate", "images", "held_out", "rule", "finish", "recipe", "epochs",
    "seed", "baselines", "beside", "workers", "weights",
)  # fmt: skip
EVALUATED = ("evaluator",)


@click.command(
    "netadapt",
    epilog=examples(
        "mnv3search netadapt mobilenet_v3_large --target-latency 40ms",
        "mnv3search netadapt best.json --target-latency 0.8x --selection accuracy --step 0.025 --decay 0.96",
        "mnv3search netadapt runs/flowers --data flowers/ --target-latency 0.6x --device host",
        "mnv3search netadapt runs/flowers --data flowers/ --target-latency 4ms --device host --steps 200 --images 5000 "
        "--baseline runs/flowers-0.75",
        "mnv3search netadapt --resume runs/2026-01-31-flowers-pruned-0.6x",
    ),
)
@click.argument("network", required=False, metavar="[NETWORK|RUN]")
@opt.target_option
@opt.confidence_option
@click.option("--device", help=f"See mnv3search devices.  [default: {DEVICE}; {PRUNING_DEVICE} with --data]")
@opt.measured_options
@click.option("--evaluator", help=f"Accuracy evaluator of a NETWORK.  [default: {EVALUATOR}]")
@opt.step_option(f"{RUN['step_fraction']:g}; {PRUNING['step_fraction']:g} with --data")
@opt.netadapt_options
@click.option("--data", metavar="DATA", help="Prune the trained RUN on these: image folder, zip, torchvision:….")
@click.option("--weights", metavar="FILE", help="With --data: a NETWORK's weights, torchvision's or timm's.")
@click.option(
    "--steps", "short_steps", type=int, default=PRUNING["short_steps"], show_default=True,
    help="T: of each proposal's short fine-tune.",
)  # fmt: skip
@click.option(
    "--batch-size", "short_batch", type=int, default=PRUNING["short_batch"], show_default=True, help="Of these steps."
)
@click.option(
    "--learning-rate", "short_rate", type=float, default=PRUNING["short_rate"], show_default=True,
    help="Of these steps.",
)  # fmt: skip
@click.option("--images", type=int, help="Training images that these steps draw from.  [default: all]")
@click.option(
    "--held-out", type=float,
    help="Share of the training images that score proposals, 10,000 at most.  [default: what the RUN's own training "
    f"left out, or {PRUNING['held_out']:g}]",
)  # fmt: skip
@click.option(
    "--channels", "rule", type=click.Choice(["l2", "first", "norm_scale"]), default=PRUNING["rule"], show_default=True,
    help="Which channels a narrower layer keeps: of largest norm, the first, or of largest BN scale.",
)  # fmt: skip
@click.option(
    "--finish", type=click.Choice(["long", "scratch", "none"]), default=PRUNING["finish"], show_default=True,
    help="At the end: a long fine-tune, a training from scratch, or neither.",
)  # fmt: skip
@click.option("--recipe", metavar="NAME|FILE", help="Of the end.  [default: finetune; small_32 up to 64 pixels]")
@click.option("--epochs", type=int, help="Of the end, in place of the recipe's.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=PRUNING["seed"], show_default=True,
    help="Of everything random.",
)  # fmt: skip
@click.option("--workers", type=int, help="Processes that fine-tune proposals.  [default: one a GPU, or a core]")
@click.option(
    "--baseline", "baselines", metavar="RUN", multiple=True,
    help="Also evaluate and draw this trained network, such as a narrower width.",
)  # fmt: skip
@click.option("--beside", "beside", metavar="RUN", multiple=True, hidden=True)
@opt.folder_options
@opt.on_threads("--train-threads")
def netadapt_command(network: str | None, out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """NetAdapt: narrow a network layer by layer to a latency, timed whole where the device can be.

    NETWORK is a published network's name, such as mobilenet_v2@0.75, a search space's for its reference, a .json file
    or a search's folder; its accuracy is what the evaluator says. RUN is a trained network (a training's folder or a
    .safetensors file, or a NETWORK with --weights FILE) and needs --data: every proposal then inherits its weights, is
    fine-tuned for T steps and scored on held-out training images. The options from --data on are for that.

    Exits with 2 where no narrowing can meet the target, which is said before anything is evaluated or trained; and
    where the steps of a RUN end above it: what they came to is then kept, and its notes say why.
    """
    from mnv3search.runs.folder import PruningFolder
    from mnv3search.runs.session import resume_pruning, start_pruning

    options["baselines"] += options.pop("beside")  # its name before
    if resume is not None and PruningFolder.is_one(resume):
        opt.only_resumed("workers", "train_threads")
        with ProgressLine(quiet=as_json) as progress:
            pruned = resume_pruning(resume, data=options["data"], workers=options["workers"], progress=progress)
    elif resume is None and (options["data"] or options["weights"] or is_trained(network or "")):
        workers, settings = options.pop("workers"), _pruning_settings(network, options)
        with ProgressLine(quiet=as_json) as progress:
            pruned = start_pruning(settings, out, workers=workers, progress=progress)
    else:
        _refuse(TRAINED, "is for a trained RUN; give one, and --data")
        start_or_resume(lambda: _settings(network, options), out, resume, kind="netadapt", as_json=as_json)
        return
    show(pruned, as_json=as_json)
    if not pruned.met:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _settings(network: str | None, options: dict[str, Any]) -> RunSettings:
    from mnv3search.runs.settings import netadapt_settings

    target = options.pop("target_latency")
    if not network or not target:
        raise click.UsageError("give a NETWORK and --target-latency, or --resume DIR")
    device = opt.take_device(options, lambda: DEVICE)
    options = {name: value for name, value in opt.given(options).items() if name not in TRAINED}
    return netadapt_settings(network, target, device=device, **options)


def _pruning_settings(run: str | None, options: dict[str, Any]) -> PruningSettings:
    from mnv3search.runs.settings import pruning_settings

    data, target = options.pop("data"), options.pop("target_latency")
    if data is None:
        raise click.UsageError(f"{run} has weights: pruning it needs the images, --data DIR")
    if run is None or target is None:
        raise click.UsageError("give a RUN and --target-latency with --data, or --resume DIR")
    device = opt.take_device(options, lambda: PRUNING_DEVICE)
    if options["weights"] is not None or is_trained(run):  # else it is said that the network is none
        _refuse(EVALUATED, "is for a NETWORK without weights; leave it away with --data")
    options = {name: value for name, value in opt.given(options).items() if name not in EVALUATED}
    return pruning_settings(run, data, target, device=device, **options)


def _refuse(names: tuple[str, ...], why: str) -> None:
    if given := [written for name, written in opt.on_command_line().items() if name in names]:
        raise click.UsageError(f"{given[0]} {why}")


_BASELINES = (
    "next: width multipliers of the same network (mnv3search train NETWORK@0.75 --data …) can be drawn into that "
    "picture with --baseline RUN"
)


def show(outcome: PruningOutcome, *, as_json: bool) -> None:
    """Before and after, the notes and where the files are; or one JSON object."""
    from mnv3search.cli.console import new_table, stdout_console
    from mnv3search.report.summary import millions, with_error
    from mnv3search.training.progress import duration_text

    if as_json:
        print_json(outcome.to_mapping())
        return
    columns = (f"top-1 % ({outcome.evaluated_on})", "ms", "MAdds M", "parameters M")
    table = new_table("network", figures=columns, title=outcome.heading)
    for figures in (outcome.before, outcome.after, *outcome.baselines):
        latency = figures.latency
        mark = "meas." if latency.measured else "pred."
        table.add_row(
            figures.name, with_error(figures.top1, figures.top1_std, 2),
            with_error(latency.ms, latency.error_ms, 3, mark), millions(figures.madds), millions(figures.parameters, 2),
        )  # fmt: skip
    console = stdout_console()
    console.print(table)
    steps, where = outcome.trajectory.number, outcome.folder.path
    verdict = "within the target" if outcome.met else "not within the target"
    lines = (
        f"{verdict} after {steps} steps; {outcome.trained_images:,} images were trained on to find them; "
        f"{duration_text(outcome.seconds)} in all sessions",
        *outcome.notes,
        f"network: {outcome.folder.best}; steps: {where / 'steps.csv'}; picture: {where / 'netadapt.png'}",
        *([] if outcome.baselines else [_BASELINES]),
    )
    console.say(*(f"• {line}" for line in lines))
