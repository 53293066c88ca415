"""``mnv3search search``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mnv3search.cli import run_options as opt
from mnv3search.cli.output import json_option
from mnv3search.cli.run_command import space_settings


@click.command(
    "search",
    epilog="Examples:  mnv3search search --space mnv3_large --target-latency 45ms --objectives 2  |  "
    "mnv3search search --space my.yaml --target-latency 0.7x --sampler tpe --trials 500",
)
@click.option("--space", help="See mnv3search spaces; a name or a YAML file.")
@opt.target_option
@opt.device_option
@opt.evaluator_option
@opt.trials_option
@opt.seed_option
@opt.sampler_option
@opt.objectives_option
@opt.exponent_option
@opt.out_option
@opt.resume_option
@json_option
def command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Block search alone, at the target."""
    from mnv3search.runs import search_run

    opt.carry_out(search_run, lambda: space_settings("search", options), out, resume, kind="search", as_json=as_json)
