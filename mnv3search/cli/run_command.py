"""``mnv3search run`` and ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mnv3search.cli import options as opt
from mnv3search.cli.options import composed_from, on_threads
from mnv3search.cli.output import examples

if TYPE_CHECKING:
    from mnv3search.runs import RunSettings


@click.command(
    "run",
    epilog=examples(
        "mnv3search run --space mnv3_large --target-latency 50ms",
        "mnv3search run --space mnv3_small --target-latency 0.8x --device host",
        "mnv3search run --space mnv3_small_32 --data cifar10/ --evaluator proxy --target-latency 0.8x",
        "mnv3search run --resume runs/2026-01-31-mnv3_large-50ms",
    ),
)
@opt.space_options
@click.option("--slack", type=float, default=0.10, show_default=True, help="Search at (1 + slack) times the target.")
@click.option(
    "--finalists", type=int,
    help=f"Networks that NetAdapt takes to the target.  [default: {opt.FINALISTS}; with an evaluator that trains 0: "
    "each step would train some twenty networks]",
)  # fmt: skip
@opt.netadapt_options
@opt.folder_options
@on_threads("--train-threads")
def run_command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """The main job: block search, then NetAdapt.

    The block search aims a little above the target, NetAdapt narrows the best few down to it, and the best of these
    and of the networks that met it at once is the result. A device that can be timed is profiled first, and the
    finalists are timed whole before one is named: it passes or fails.
    """
    opt.carry_out(lambda: space_settings("run", options), out, resume, kind="run", as_json=as_json)


def space_settings(kind: Literal["run", "search"], options: dict[str, Any]) -> RunSettings:
    """Settings from a command's options, the space's defaults filled in."""
    from mnv3search.errors import EvaluatorError
    from mnv3search.latency.devices import load_device
    from mnv3search.latency.model import parse_target
    from mnv3search.runs import RunSettings
    from mnv3search.space import load_space

    name, target = options.pop("space"), options.pop("target_latency")
    if not name or not target:
        raise click.UsageError("give --space and --target-latency, or --resume DIR")
    parse_target(target)
    space = load_space(name)
    device = composed_from(options.pop("device") or space.device, options)
    evaluator = options.pop("evaluator") or space.evaluator
    if evaluator is None:
        raise EvaluatorError(
            f"space {space.name} has no evaluator of its own: accuracy there must be learned from your images; give "
            "them with --data and add --evaluator proxy, or take a score such as --evaluator zero_cost:naswot"
        )
    load_device(device)
    fill_defaults(kind, evaluator, options)
    return RunSettings(kind=kind, subject=name, target=target, device=device, evaluator=evaluator, **options)


def fill_defaults(kind: Literal["run", "search"], text: str, options: dict[str, Any]) -> None:
    """Fill in what depends on how dear an answer of the evaluator ``text`` is; its images are looked up, not read."""
    from mnv3search.accuracy.evaluator import capabilities_of
    from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
    from mnv3search.training.data.open_data import open_data

    data = open_data(options["data"], scan=False) if options["data"] else None
    can = capabilities_of(load_evaluator(text, EvaluatorContext(data=data)))
    if options["trials"] is None:
        options["trials"] = opt.TRIALS_TRAINED if can.trains else opt.TRIALS if can.cheap else opt.TRIALS_SCORED
    if kind == "run" and options["finalists"] is None:
        options["finalists"] = 0 if can.trains else opt.FINALISTS


@click.command(
    "search",
    epilog=examples(
        "mnv3search search --space mnv3_large --target-latency 45ms --objectives 2",
        "mnv3search search --space mnv3_small_32 --evaluator zero_cost:naswot --target-latency 0.8x --device host",
        "mnv3search search --space my.yaml --target-latency 0.7x --sampler tpe --trials 500",
    ),
)
@opt.space_options
@opt.folder_options
@on_threads("--train-threads")
def search_command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Block search alone, at the target; the best are timed whole where the device can be."""
    opt.carry_out(lambda: space_settings("search", options), out, resume, kind="search", as_json=as_json)
