"""Options that several commands share: of a run, of a measured device, of the threads of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mnv3search.cli.output import json_option, print_json, stdout_console
from mnv3search.cli.progress import ProgressLine
from mnv3search.threads import default_threads, training_threads

if TYPE_CHECKING:
    from mnv3search.runs import RunOutcome, RunSettings

Decorator = Callable[[Any], Any]

_RUNTIME: Decorator = click.option("--runtime", help="Of a measured device: onnxruntime, torch … (mnv3search devices).")
_THREADS: Decorator = click.option("--threads", type=int, help="Of one call on a measured device.  [default: 1]")
_PRECISION: Decorator = click.option("--precision", help="fp32 or int8, on a measured device.  [default: fp32]")
_STALE: Decorator = click.option(
    "--allow-stale", is_flag=True, help="After a runtime's upgrade, take the table of its former version, marked so."
)


def measured_options(function: Any) -> Any:
    """Add ``--runtime``, ``--threads``, ``--precision`` and ``--allow-stale``; :func:`composed` takes their values."""
    return _RUNTIME(_THREADS(_PRECISION(_STALE(function))))


def composed(
    device: str, runtime: str | None, threads: int | None, precision: str | None, *, allow_stale: bool = False
) -> str:
    """The device's text with the options in it: ``host`` and 2 threads give ``host:onnxruntime,threads=2``.

    Raises:
        UnknownNameError: no such runtime or precision.
        DeviceError: an option for a device that is not measured, or one that contradicts its text.
    """
    options = {"--runtime": runtime, "--threads": threads, "--precision": precision, "--allow-stale": allow_stale}
    given = [name for name, value in options.items() if value is not None and value is not False]
    if not given:
        return device
    from mnv3search.errors import DeviceError
    from mnv3search.latency.device_spec import DeviceSpec

    if not DeviceSpec.names(device):
        raise DeviceError(f"{given[0]} is for measured devices; device {device!r:.80} is not one: add --device host")
    return str(DeviceSpec.parse(device).with_options(runtime, threads, precision, stale=allow_stale))


def composed_from(device: str, options: dict[str, Any]) -> str:
    """The same with the values of :func:`measured_options` among a command's ``options``, from which they are taken.

    Raises:
        UnknownNameError, DeviceError: as :func:`composed`.
    """
    values = {name: options.pop(name) for name in ("runtime", "threads", "precision", "allow_stale")}
    return composed(device, **values)


CommandDecorator = Callable[[Callable[..., None]], Callable[..., None]]


def threads_option(flag: str = "--threads") -> Callable[[Any], Any]:
    """The option; ``--train-threads`` where ``--threads`` are those of a measured device."""
    return click.option(
        flag, "train_threads", type=click.IntRange(1, 1024),
        help="That networks are trained and judged on.  [default: OMP_NUM_THREADS, else the cores that are free]",
    )  # fmt: skip


def on_threads(flag: str = "--threads") -> CommandDecorator:
    """The option, and the command run on so many threads; one that only predicts, or that times torch, is left alone.

    How torch's threads wait for one another would be part of what is timed.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def within(*arguments: Any, train_threads: int | None, **options: Any) -> None:
            learns = options.get("data") is not None or options.get("resume") is not None
            if train_threads is None and (not learns or "torch" in f"{options.get('device')} {options.get('runtime')}"):
                function(*arguments, **options)
                return
            with training_threads(train_threads or default_threads()):
                function(*arguments, **options)

        decorated: Callable[..., None] = threads_option(flag)(within)
        return decorated

    return decorate


TRIALS, TRIALS_SCORED, TRIALS_TRAINED = 5_000, 1_000, 24
FINALISTS = 3

target_option: Decorator = click.option(
    "--target-latency", metavar="TARGET", help="Such as 50ms, 0.05s, 800us or 0.8x: times the reference (or seed)."
)
confidence_option: Decorator = click.option(
    "--confidence", type=float, default=0.9, show_default=True,
    help="A network counts as within the target with this confidence, by its latency's stated error; 0.5 aims at the "
    "latency itself.",
)  # fmt: skip
device_option: Decorator = click.option("--device", help="See mnv3search devices; the space's own unless given.")
evaluator_option: Decorator = click.option(
    "--evaluator",
    help="Accuracy evaluator: prior (or prior:once_for_all, prior:accel_nasbench), zero_cost:naswot (or zen, synflow, "
    "gradient_norm, parameters, madds), or proxy:epochs=3,images=10000, which trains every network on --data; the "
    "space's own unless given.",
)
data_option: Decorator = click.option(
    "--data", metavar="WHERE",
    help="Images to learn from: a folder or .zip with a folder for each class, or torchvision:NAME:FOLDER. The "
    "networks take their classes.",
)  # fmt: skip
pruner_option: Decorator = click.option(
    "--pruner", default="auto", show_default=True,
    help="When a network that is trained to be judged is given up: median or halving (Optuna's, one objective), "
    "dominated, none; auto is median, or dominated with two objectives.",
)  # fmt: skip
out_option: Decorator = click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/<date>-<what>-<target>]"
)
resume_option: Decorator = click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with an interrupted run, by itself; --data says where its images are now, if they moved.",
)
trials_option: Decorator = click.option(
    "--trials", type=int,
    help=f"Networks that the block search judges.  [default: {TRIALS:,}; with a score that costs a pass through the "
    f"network {TRIALS_SCORED:,}; with an evaluator that trains {TRIALS_TRAINED}]",
)  # fmt: skip
seed_option: Decorator = click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same result.")
sampler_option: Decorator = click.option(
    "--sampler",
    default="auto",
    show_default=True,
    help="auto, evolution, tpe, nsga2, gp or random; resumed, only evolution repeats an undisturbed run exactly.",
)
objectives_option: Decorator = click.option(
    "--objectives", type=int, default=1, show_default=True,
    help="1: top-1 within the target (with --soft the reward); 2: top-1 and latency.",
)  # fmt: skip
soft_option: Decorator = click.option(
    "--soft", is_flag=True, help="Search for the paper's reward ACC × (LAT/TAR)^w in place of top-1 within the target."
)
exponent_option: Decorator = click.option(
    "--reward-exponent",
    type=float,
    default=-0.07,
    show_default=True,
    help="w of the reward of --soft.",
)
step_option: Decorator = click.option(
    "--step", "step_fraction", type=float, default=0.01, show_default=True,
    help="NetAdapt's least cut of a step, as a share of the seed's latency.",
)  # fmt: skip
decay_option: Decorator = click.option(
    "--decay", type=float, default=1.0, show_default=True, help="Factor of that cut from step to step."
)
selection_option: Decorator = click.option(
    "--selection", type=click.Choice(["ratio", "accuracy"]), default="ratio", show_default=True,
    help="Keep the largest ΔAcc/|ΔLat|, or the most accurate proposal.",
)  # fmt: skip


def _spaces(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The names of spaces for a shell's completion."""
    from mnv3search.space import space_names

    return [name for name in space_names() if name.startswith(begun)]


space_option: Decorator = click.option(
    "--space", help="See mnv3search spaces; a name or a YAML file.", shell_complete=_spaces
)


def _together(*options: Decorator) -> Decorator:
    """One decorator for several options, shown in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


space_options = _together(
    space_option,
    target_option,
    confidence_option,
    device_option,
    measured_options,
    evaluator_option,
    data_option,
    pruner_option,
    trials_option,
    seed_option,
    sampler_option,
    objectives_option,
    soft_option,
    exponent_option,
)
netadapt_options = _together(step_option, decay_option, selection_option)
folder_options = _together(out_option, resume_option, json_option)


def carry_out(
    settings: Callable[[], RunSettings], out: Path | None, resume: Path | None, *, kind: str, as_json: bool
) -> None:
    """Make or open the folder, do the run, and show what it found."""
    from mnv3search.errors import RunError
    from mnv3search.runs import RunFolder
    from mnv3search.runs.session import work

    if resume is not None:
        only_resumed({"resume", "data", "as_json"})
        folder = RunFolder.open(resume)
        if folder.settings.kind != kind:
            raise RunError(
                f"{resume} is a {folder.settings.kind}; go on with mnv3search {folder.settings.kind} --resume"
            )
        if data := click.get_current_context().params.get("data"):
            folder.data_are_at(data)
    else:
        folder = RunFolder.create(out, settings())
    with ProgressLine(quiet=as_json) as progress:
        outcome = work(folder, progress, resumed=resume is not None)
    show(outcome, as_json=as_json)


def only_resumed(may_change: set[str]) -> None:
    """Refuse what was begun with and cannot be changed on the way, rather than leave it unheard."""
    context = click.get_current_context()
    given = [
        parameter.human_readable_name if isinstance(parameter, click.Argument) else parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in {*may_change, "quiet", "verbose"}
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--resume goes on with what was begun; leave {', '.join(given)} away")


def show(outcome: RunOutcome, *, as_json: bool) -> None:
    """The final table, the notes and where the files are; or one JSON object."""
    from mnv3search.runs.artifacts import outcome_mapping

    if as_json:
        print_json(outcome_mapping(outcome))
        return
    from mnv3search.report.summary import headline
    from mnv3search.report.tables import final_table

    console = stdout_console()
    if outcome.summary.no_ranking is not None:
        console.print(f"No ranking: {outcome.summary.no_ranking}", markup=False, highlight=False)
    console.print(final_table(outcome.summary))
    shown = {"No ranking", "Asked", "Found"}  # before the table, or in it
    said = [f"{s.label}: {s.text}" for s in headline(outcome.summary) if s.label not in shown]
    for note in [*said, *outcome.summary.notes]:
        console.print(f"• {note}", markup=False, highlight=False, soft_wrap=not console.is_terminal)
    evaluated = f"{outcome.evaluated:,} networks evaluated in {outcome.seconds:.0f} s"
    where = f"report: {outcome.folder.path / 'report.html'}"
    console.print(f"{evaluated}; {where}", markup=False, highlight=False, soft_wrap=True)
