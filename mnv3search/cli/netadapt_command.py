"""``mnv3search netadapt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv3search.cli import run_options as opt
from mnv3search.cli.device_options import composed_from, measured_options

if TYPE_CHECKING:
    from mnv3search.runs import RunSettings


@click.command(
    "netadapt",
    epilog="Examples:  mnv3search netadapt mobilenet_v3_large --target-latency 40ms  |  "
    "mnv3search netadapt best.json --target-latency 0.8x --selection accuracy --step 0.025 --decay 0.96",
)
@click.argument("network", required=False)
@opt.target_option
@opt.confidence_option
@click.option("--device", default="pixel1", show_default=True, help="See mnv3search devices.")
@measured_options
@click.option("--evaluator", default="prior", show_default=True, help="Accuracy evaluator.")
@opt.netadapt_options
@opt.folder_options
def command(network: str | None, out: Path | None, resume: Path | None, as_json: bool, **options: Any) -> None:
    """NetAdapt alone: narrow a network to a target, timed whole where the device can be.

    NETWORK is a published network's name, such as mobilenet_v2@0.75, or a path ending in .json.
    """
    opt.carry_out(lambda: _settings(network, options), out, resume, kind="netadapt", as_json=as_json)


def _settings(network: str | None, options: dict[str, Any]) -> RunSettings:
    from mnv3search.accuracy.registry import load_evaluator
    from mnv3search.families import parse_network
    from mnv3search.latency.devices import load_device
    from mnv3search.latency.target import parse_target
    from mnv3search.runs import RunSettings

    target = options.pop("target_latency")
    if not network or not target:
        raise click.UsageError("give a NETWORK and --target-latency, or --resume DIR")
    parse_target(target)
    parse_network(network)
    device = composed_from(options.pop("device"), options)
    load_device(device)
    load_evaluator(options["evaluator"])
    return RunSettings(kind="netadapt", subject=network, target=target, device=device, **options)
