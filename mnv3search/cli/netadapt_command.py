"""``mnv3search netadapt``: of a network, by an evaluator; of a trained network, by its accuracy on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli import options as opt
from mnv3search.cli.group import EXIT_BAD_INPUT
from mnv3search.cli.options import composed_from, measured_options, on_threads
from mnv3search.cli.output import examples

if TYPE_CHECKING:
    from mnv3search.runs import RunSettings
    from mnv3search.runs.pruning_outcome import PruningOutcome
    from mnv3search.runs.settings import PruningSettings

TRAINED_STEP = 0.025  # of a step that is paid for in training: NetAdapt's own; 0.01 where an evaluator answers at once
TRAINED = (
    "data", "short_steps", "short_batch", "short_rate", "images", "held_out", "rule", "finish", "recipe", "epochs",
    "seed", "beside", "workers", "weights",
)  # fmt: skip
EVALUATED = ("evaluator",)
HELD_OUT = 0.1


@click.command(
    "netadapt",
    epilog=examples(
        "mnv3search netadapt mobilenet_v3_large --target-latency 40ms",
        "mnv3search netadapt best.json --target-latency 0.8x --selection accuracy --step 0.025 --decay 0.96",
        "mnv3search netadapt runs/flowers --data flowers/ --target-latency 0.6x --device host",
        "mnv3search netadapt runs/flowers --data flowers/ --target-latency 4ms --device host --steps 200 --images 5000 "
        "--beside runs/flowers-0.75",
        "mnv3search netadapt --resume runs/2026-01-31-flowers-pruned-0.6x",
    ),
)
@click.argument("network", required=False, metavar="[NETWORK|RUN]")
@opt.target_option
@opt.confidence_option
@click.option("--device", help="See mnv3search devices.  [default: pixel1; host with --data]")
@measured_options
@click.option("--evaluator", default="prior", show_default=True, help="Accuracy evaluator of a NETWORK.")
@opt.netadapt_options
@click.option("--data", metavar="DATA", help="Prune the trained RUN on these: image folder, zip, torchvision:….")
@click.option("--weights", metavar="FILE", help="With --data: a NETWORK's weights, torchvision's or timm's.")
@click.option(
    "--steps", "short_steps", type=int, default=100, show_default=True, help="T: of each proposal's short fine-tune."
)
@click.option("--batch-size", "short_batch", type=int, default=64, show_default=True, help="Of these steps.")
@click.option("--learning-rate", "short_rate", type=float, default=0.005, show_default=True, help="Of these steps.")
@click.option("--images", type=int, help="Training images that these steps draw from.  [default: all]")
@click.option(
    "--held-out", type=float,
    help="Share of the training images that score proposals, 10,000 at most.  [default: what the RUN's own training "
    "left out, or 0.1]",
)  # fmt: skip
@click.option(
    "--channels", "rule", type=click.Choice(["l2", "first", "norm_scale"]), default="l2", show_default=True,
    help="Which channels a narrower layer keeps: of largest norm, the first, or of largest BN scale.",
)  # fmt: skip
@click.option(
    "--finish", type=click.Choice(["long", "scratch", "none"]), default="long", show_default=True,
    help="At the end: a long fine-tune, a training from scratch, or neither.",
)  # fmt: skip
@click.option("--recipe", metavar="NAME|FILE", help="Of the end.  [default: finetune; small_32 up to 64 pixels]")
@click.option("--epochs", type=int, help="Of the end, in place of the recipe's.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random.")
@click.option("--workers", type=int, help="Processes that fine-tune proposals.  [default: one a GPU, or a core]")
@click.option(
    "--beside", metavar="RUN", multiple=True, help="Also judge and draw this trained network, such as a narrower width."
)
@opt.folder_options
@click.pass_context
@on_threads("--train-threads")
def netadapt_command(
    context: click.Context, /, network: str | None, out: Path | None, resume: Path | None, as_json: bool, **options: Any
) -> None:
    """NetAdapt: narrow a network layer by layer to a latency, timed whole where the device can be.

    NETWORK is a published network's name, such as mobilenet_v2@0.75, a search space's for its reference, a .json file
    or a search's folder; its accuracy is what the evaluator says. RUN is a trained network (a training's folder or a
    .safetensors file, or a NETWORK with --weights FILE) and needs --data: every proposal then inherits its weights, is
    fine-tuned for T steps and scored on held-out training images. The options from --data on are for that, and a step
    cuts 0.025 unless --step says otherwise.

    Exits with 2 where no narrowing can meet the target, which is said before anything is judged or trained; and where
    the steps of a RUN end above it: what they came to is then kept, and its notes say why.
    """
    from mnv3search.runs.folder import PruningFolder

    if resume is not None and PruningFolder.is_one(resume):
        _resume(context, network, out, resume, options, as_json=as_json)
    elif resume is None and (options["data"] or options["weights"] or _is_trained(network)):
        _prune(context, network, out, options, as_json=as_json)
    else:
        _refuse(context, TRAINED, "is for a trained RUN; give one, and --data")
        opt.carry_out(lambda: _settings(network, options), out, resume, kind="netadapt", as_json=as_json)


def _settings(network: str | None, options: dict[str, Any]) -> RunSettings:
    from mnv3search.accuracy.registry import load_evaluator
    from mnv3search.latency.devices import load_device
    from mnv3search.latency.model import parse_target
    from mnv3search.naming import parse_network
    from mnv3search.runs import RunSettings

    options = {name: value for name, value in options.items() if name not in TRAINED}
    target = options.pop("target_latency")
    if not network or not target:
        raise click.UsageError("give a NETWORK and --target-latency, or --resume DIR")
    parse_target(target)
    parse_network(network)
    options["device"] = options["device"] or "pixel1"
    device = composed_from(options.pop("device"), options)
    load_device(device)
    load_evaluator(options["evaluator"])
    return RunSettings(kind="netadapt", subject=network, target=target, device=device, **options)


def _is_trained(network: str | None) -> bool:
    """Whether this names a trained network: a file of one, or a folder, other than a search's without weights."""
    if network is None or not Path(network).is_dir():
        return network is not None and network.endswith(".safetensors")
    return (Path(network) / "best.safetensors").is_file() or not (Path(network) / "best.json").is_file()


def _given(context: click.Context, names: tuple[str, ...]) -> list[str]:
    """The options among ``names`` that stand on the command line, as they are written there."""
    given = [name for name in names if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    return [p.opts[-1] for p in context.command.params if p.name in given]


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    if given := _given(context, names):
        raise click.UsageError(f"{given[0]} {why}")


def _prune(
    context: click.Context, run: str | None, out: Path | None, options: dict[str, Any], *, as_json: bool
) -> None:
    from mnv3search.cli.progress import ProgressLine
    from mnv3search.errors import WeightsError
    from mnv3search.runs.pruning import prune

    if options["data"] is None:
        raise click.UsageError(f"{run} has weights: pruning it needs the images, --data DIR")
    if run is None or options["target_latency"] is None:
        raise click.UsageError("give a RUN and --target-latency beside --data, or --resume DIR")
    if options["weights"] is None and not _is_trained(run):
        raise WeightsError(
            f"{run} is no trained network, which --data asks for; give the folder of a training or its "
            f"best.safetensors (mnv3search train {run} --data {options['data']} makes one), add --weights FILE, or "
            "leave --data away"
        )
    _refuse(context, EVALUATED, "is for a NETWORK without weights; leave it away with --data")
    workers, settings = options.pop("workers"), _pruning_settings(context, run, options)
    with ProgressLine(quiet=as_json) as progress:
        outcome = prune(settings, out, workers=workers, progress=progress)
    show(outcome, as_json=as_json)
    if not outcome.met:
        context.exit(EXIT_BAD_INPUT)


def _pruning_settings(context: click.Context, run: str, options: dict[str, Any]) -> PruningSettings:
    from mnv3search.latency.devices import load_device
    from mnv3search.runs.settings import PruningSettings

    options = {name: value for name, value in options.items() if name not in EVALUATED}
    if not _given(context, ("step_fraction",)):
        options["step_fraction"] = TRAINED_STEP
    options["device"] = options["device"] or "host"
    device = composed_from(options.pop("device"), options)
    resolution, left_out = _about(run, options["weights"])
    if options["held_out"] is None:
        options["held_out"] = left_out or HELD_OUT
    settings = PruningSettings(run=run, target=options.pop("target_latency"), device=device, **options)
    settings.finishing_recipe(resolution, images=1)  # which says what is wrong with it
    load_device(device)
    return settings


def _about(run: str, weights: str | None) -> tuple[int, float | None]:
    """The pixels a side that a network takes, and the share of its training images that was left out for this."""
    from mnv3search.training.trained import load_trained

    if weights is not None:
        from mnv3search.naming import parse_network

        return parse_network(run).resolution, None
    trained = load_trained(Path(run))
    left_out = trained.facts.get("held_out")
    return trained.architecture.resolution, left_out if isinstance(left_out, float) else None


def _resume(
    context: click.Context, network: str | None, out: Path | None, folder: Path, options: dict[str, Any], *,
    as_json: bool,
) -> None:  # fmt: skip
    from mnv3search.cli.progress import ProgressLine
    from mnv3search.runs.pruning import resume_pruning

    if network is not None or out is not None:
        raise click.UsageError("--resume goes on with its own network and folder; leave these away")
    kept = ("resume", "data", "workers", "train_threads", "as_json")
    settled = tuple(p.name for p in context.command.params if p.name is not None and p.name not in kept)
    _refuse(context, settled, "is settled in the folder; --resume takes --workers, and --data where the images moved")
    with ProgressLine(quiet=as_json) as progress:
        outcome = resume_pruning(folder, data=options["data"], workers=options["workers"], progress=progress)
    show(outcome, as_json=as_json)
    if not outcome.met:
        context.exit(EXIT_BAD_INPUT)


_BESIDE = (
    "next: width multipliers of the same network (mnv3search train NETWORK@0.75 --data …) can be drawn into that "
    "picture with --beside RUN"
)


def show(outcome: PruningOutcome, *, as_json: bool) -> None:
    """Before and after, the notes and where the files are; or one JSON object."""
    from mnv3search.cli.output import print_json, stdout_console
    from mnv3search.report.summary import millions, with_error
    from mnv3search.training.progress import duration_text

    if as_json:
        print_json(outcome.to_mapping())
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("network", title=escape(outcome.heading))
    for column in (f"top-1 % ({outcome.judged_by})", "ms", "MAdds M", "parameters M"):
        table.add_column(column, justify="right")
    for figures in (outcome.before, outcome.after, *outcome.beside):
        latency = figures.latency
        mark = "meas." if latency.measured else "pred."
        table.add_row(
            figures.name, with_error(figures.top1, figures.top1_std, 2),
            with_error(latency.ms, latency.error_ms, 3, mark), millions(figures.madds), millions(figures.parameters, 2),
        )  # fmt: skip
    console = stdout_console()
    console.print(table)
    steps, where = outcome.walked.number, outcome.folder.path
    verdict = "within the target" if outcome.met else "not within the target"
    lines = [
        f"{verdict} after {steps} steps; {outcome.trained_images:,} images were trained on to find them; "
        f"{duration_text(outcome.seconds)} in all sessions",
        *outcome.notes,
        f"network: {outcome.folder.best}; steps: {where / 'steps.csv'}; picture: {where / 'netadapt.png'}",
        *([] if outcome.beside else [_BESIDE]),
    ]
    for line in lines:
        console.print(f"• {line}", markup=False, highlight=False, soft_wrap=True)
