"""``mnv3search run`` and ``search``, and how a run is started, resumed and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mnv3search.cli import options as opt
from mnv3search.cli.output import examples, print_json
from mnv3search.cli.progress import ProgressLine
from mnv3search.runs.settings import RUN

if TYPE_CHECKING:
    from mnv3search.runs.artifacts import RunOutcome
    from mnv3search.runs.settings import RunSettings


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
@click.option(
    "--slack", type=float, default=RUN["slack"], show_default=True, help="Search up to (1 + slack) times the target."
)
@click.option(
    "--finalists", type=int,
    help=f"Networks that NetAdapt takes to the target.  [default: {RUN['finalists']}; with an evaluator that trains 0: "
    "each step would train some twenty networks]",
)  # fmt: skip
@opt.step_option(f"{RUN['step_fraction']:g}")
@opt.netadapt_options
@opt.folder_options
@opt.on_threads("--train-threads")
def run_command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """The main job: block search, then NetAdapt.

    The block search goes a little above the target, NetAdapt narrows the best few down to it, and the best of these
    and of the networks that met it at once is the result. A device that can be timed is profiled first, and the
    finalists are timed whole before one is named: it passes or fails.
    """
    start_or_resume(lambda: _settings("run", options), out, resume, kind="run", as_json=as_json)


@click.command(
    "search",
    epilog=examples(
        "mnv3search search --space mnv3_large --target-latency 45ms --objectives 2",
        "mnv3search search --space mnv3_small_32 --evaluator zero_cost:madds --target-latency 0.8x --device host",
        "mnv3search search --space my.yaml --target-latency 0.7x --sampler tpe --trials 500",
    ),
)
@opt.space_options
@opt.folder_options
@opt.on_threads("--train-threads")
def search_command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Block search alone, at the target; the best are timed whole where the device can be."""
    start_or_resume(lambda: _settings("search", options), out, resume, kind="search", as_json=as_json)


def _settings(kind: Literal["run", "search"], options: dict[str, Any]) -> RunSettings:
    from mnv3search.runs.settings import space_settings
    from mnv3search.space import load_space

    space, target = options.pop("space"), options.pop("target_latency")
    if not space or not target:
        raise click.UsageError("give --space and --target-latency, or --resume DIR")
    device = opt.take_device(options, lambda: load_space(space).device)
    return space_settings(kind, space, target, device=device, **opt.given(options))


def start_or_resume(
    settings: Callable[[], RunSettings], out: Path | None, resume: Path | None, *, kind: str, as_json: bool
) -> None:
    """Do a run in a new folder, or go on with one, and show what it found."""
    from mnv3search.errors import RunError
    from mnv3search.runs.folder import RunFolder
    from mnv3search.runs.session import resume_run, start_run

    if resume is not None:
        opt.only_resumed()
        begun = RunFolder.open(resume).settings.kind
        if begun != kind:
            raise RunError(f"{resume} is a {begun}; go on with mnv3search {begun} --resume")
        data = click.get_current_context().params.get("data")
        with ProgressLine(quiet=as_json) as progress:
            outcome = resume_run(resume, data=data, progress=progress)
    else:
        asked = settings()
        with ProgressLine(quiet=as_json) as progress:
            outcome = start_run(asked, out, progress=progress)
    show(outcome, as_json=as_json)


def show(outcome: RunOutcome, *, as_json: bool) -> None:
    """The final table, the notes and where the files are; or one JSON object."""
    if as_json:
        print_json(outcome.to_mapping())
        return
    from mnv3search.cli.console import stdout_console
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
    console.say(f"{evaluated}; {where}")
