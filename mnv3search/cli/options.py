"""Options that several commands share: of a run, of a measured device, of the threads of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mnv3search.cli.output import json_option
from mnv3search.runs.settings import RUN, TRIALS_SCORED, TRIALS_TRAINED
from mnv3search.threads import default_threads, training_threads

Decorator = Callable[[Any], Any]


def together(*options: Decorator) -> Decorator:
    """One decorator for several options, shown in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


measured_options = together(
    click.option("--runtime", help="Of a measured device: onnxruntime, torch … (mnv3search devices)."),
    click.option("--threads", type=int, help="Of one call on a measured device.  [default: 1]"),
    click.option("--precision", help="fp32 or int8, on a measured device.  [default: fp32]"),
    click.option(
        "--allow-stale", is_flag=True,
        help="After a runtime's upgrade, take the table of its former version, marked so.",
    ),
)  # fmt: skip
"""``--runtime``, ``--threads``, ``--precision`` and ``--allow-stale``; :func:`composed` takes their values."""


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


def take_device(options: dict[str, Any], default: Callable[[], str]) -> str | None:
    """The device's text of a command's ``options``, from which it and :func:`measured_options` are taken.

    None where nothing is said; ``default`` names the device that options of a measured one are then of.
    """
    values = {name: options.pop(name) for name in ("runtime", "threads", "precision", "allow_stale")}
    device: str | None = options.pop("device")
    said = any(value is not None and value is not False for value in values.values())
    return composed(device or default(), **values) if said else device


def threads_option(flag: str = "--threads") -> Decorator:
    """The option; ``--train-threads`` where ``--threads`` are those of a measured device."""
    return click.option(
        flag, "train_threads", type=click.IntRange(1, 1024),
        help="That networks are trained and evaluated on.  [default: OMP_NUM_THREADS, else the cores that are free]",
    )  # fmt: skip


def on_threads(flag: str = "--threads") -> Callable[[Callable[..., None]], Callable[..., None]]:
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


target_option: Decorator = click.option(
    "--target-latency", metavar="TARGET", help="Such as 50ms, 0.05s, 800us or 0.8x: times the reference (or seed)."
)
confidence_option: Decorator = click.option(
    "--confidence", type=float, default=RUN["confidence"], show_default=True,
    help="A network counts as within the target with this confidence, by its latency's stated error; 0.5 counts the "
    "latency alone.",
)  # fmt: skip


def _spaces(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The names of spaces for a shell's completion."""
    from mnv3search.space import space_names

    return [name for name in space_names() if name.startswith(begun)]


space_options = together(
    click.option("--space", help="See mnv3search spaces; a name or a YAML file.", shell_complete=_spaces),
    target_option,
    confidence_option,
    click.option("--device", help="See mnv3search devices; the space's own unless given."),
    measured_options,
    click.option(
        "--evaluator",
        help="Accuracy evaluator: prior (or prior:once_for_all, prior:accel_nasbench), zero_cost:madds (or zen, "
        "synflow, gradient_norm, parameters), or proxy:epochs=3,images=10000, which trains every network on --data; "
        "the space's own unless given.",
    ),
    click.option(
        "--data", metavar="WHERE",
        help="Images to learn from: a folder or .zip with a folder for each class, or torchvision:NAME:FOLDER. The "
        "networks take their classes.",
    ),
    click.option(
        "--pruner", default=RUN["pruner"], show_default=True,
        help="When the training of a network is given up: median or halving (Optuna's, one objective), dominated, "
        "none; auto is median, or dominated with two objectives.",
    ),
    click.option(
        "--trials", type=int,
        help=f"Networks that the block search evaluates.  [default: {RUN['trials']:,}; with a score that costs a pass "
        f"through the network {TRIALS_SCORED:,}; with an evaluator that trains {TRIALS_TRAINED}]",
    ),
    click.option("--seed", type=int, default=RUN["seed"], show_default=True, help="Same seed, same result."),
    click.option(
        "--sampler", default=RUN["sampler"], show_default=True,
        help="auto, evolution, tpe, nsga2, gp or random; resumed, only evolution repeats an undisturbed run exactly.",
    ),
    click.option(
        "--objectives", type=int, default=RUN["objectives"], show_default=True,
        help="1: top-1 within the target (with --soft the reward); 2: top-1 and latency.",
    ),
    click.option(
        "--soft", is_flag=True,
        help="Search for the paper's reward ACC × (LAT/TAR)^w in place of top-1 within the target.",
    ),
    click.option(
        "--reward-exponent", type=float, default=RUN["reward_exponent"], show_default=True,
        help="w of the reward of --soft.",
    ),
)  # fmt: skip
netadapt_options = together(
    click.option(
        "--decay", type=float, default=RUN["decay"], show_default=True, help="Factor of --step from step to step."
    ),
    click.option(
        "--selection", type=click.Choice(["ratio", "accuracy"]), default=RUN["selection"], show_default=True,
        help="Keep the largest ΔAcc/|ΔLat|, or the most accurate proposal.",
    ),
)  # fmt: skip
folder_options = together(
    click.option(
        "--out", type=click.Path(path_type=Path),
        help="Folder for the results.  [default: runs/<date>-<what>-<target>]",
    ),
    click.option(
        "--resume", type=click.Path(path_type=Path), metavar="DIR",
        help="Go on with an interrupted run, by itself; --data says where its images are now, if they moved.",
    ),
    json_option,
)  # fmt: skip


def step_option(default: str) -> Decorator:
    """``--step``, whose default is that of the settings which the command makes."""
    return click.option(
        "--step", "step_fraction", type=float,
        help=f"NetAdapt's least cut of a step, as a share of the seed's latency.  [default: {default}]",
    )  # fmt: skip


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have a value; the settings have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def on_command_line() -> dict[str, str]:
    """The parameters that stand on the command line by name, as they are written there."""
    context = click.get_current_context()
    return {
        str(p.name): p.human_readable_name if isinstance(p, click.Argument) else p.opts[0]
        for p in context.command.params
        if context.get_parameter_source(str(p.name)) is ParameterSource.COMMANDLINE
    }


def only_resumed(*may_change: str) -> None:
    """Refuse what was begun with and cannot be changed on the way, rather than ignore it."""
    known = {*may_change, "resume", "data", "as_json", "quiet", "verbose"}
    if found := [written for name, written in on_command_line().items() if name not in known]:
        raise click.UsageError(f"--resume goes on with what was begun; leave {', '.join(found)} away")
