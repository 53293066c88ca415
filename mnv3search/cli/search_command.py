"""``mnv3search search``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mnv3search.cli import run_options as opt
from mnv3search.cli.output import examples
from mnv3search.cli.run_command import space_settings
from mnv3search.cli.threads_option import on_threads


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
def command(out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """Block search alone, at the target; the best are timed whole where the device can be."""
    opt.carry_out(lambda: space_settings("search", options), out, resume, kind="search", as_json=as_json)
