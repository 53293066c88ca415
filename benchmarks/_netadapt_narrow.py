"""NetAdapt's part of the benchmark: one walk down, and a long fine-tune of the network at each target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._netadapt_setup import Budget, Records, base_architecture, data, multiplier, recipe
from benchmarks._netadapt_training import train_and_judge
from mnv3search.architecture import Architecture
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.layer_search.loop import NetAdaptOptions, latencies_ms
from mnv3search.layer_search.proposals import narrowest
from mnv3search.layer_search.trained import Narrowed, netadapt_trained
from mnv3search.layer_search.trained_calibration import CALIBRATION_NETWORKS, random_narrowings
from mnv3search.layer_search.trained_journal import TrainedStep
from mnv3search.layer_search.trained_proposals import plan_step
from mnv3search.layer_search.trained_scoring import ShortTerm
from mnv3search.layer_search.trained_workers import Here
from mnv3search.report.pruning import write_pruning_steps
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.training.data.splits import held_out, stable_subset

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

SALT = "NetAdapt"


def host(work: Path) -> TableDevice:
    """This machine in onnxruntime at one thread, its table in ``work``, calibrated on narrowings of the base."""
    device = TableDevice(cache_dir=work / "table")
    device.calibrate_for(calibration_networks())
    return device


def calibration_networks() -> list[Architecture]:
    """The base, a width multiplier and narrowings of the base at random."""
    base = base_architecture()
    return [base, multiplier(0.5), *random_narrowings(base, CALIBRATION_NETWORKS - 2)]


def measure_table(work: Path) -> None:
    """Measure what calibrates, and the layers that the first step asks for: the rest is measured as it is asked for."""
    device, network = host(work), base_architecture()
    seed_ms = latencies_ms(device, [network])[0]
    least = latencies_ms(device, [narrowest(network, 8)])[0]
    plan = plan_step(network, seed_ms, device, Budget().step_fraction * seed_ms, 8)
    print(f"base {seed_ms:.4f} ms, narrowest {least:.4f} ms, {len(plan.proposals)} proposals")


def narrow_to_targets(work: Path, budget: Budget, seed: int) -> None:
    """Walk down to each target, the lowest last, and fine-tune the network there."""
    from mnv3search.training.trained import load_trained

    base, splits, records, device = load_trained(work / "base"), data(), Records(work), host(work)
    rest, held = held_out(splits.train, 0.1, SALT)
    short = ShortTerm(budget.short_steps, budget.short_batch, budget.short_rate, seed=seed)
    workers = Here(rest, stable_subset(held, budget.held_images), short)
    folder = work / "netadapt"
    folder.mkdir(exist_ok=True)
    journal = FolderJournal(folder, base)
    for target in sorted(budget.targets, reverse=True):
        limit_ms = target * _seed_ms(journal, device, base)
        found = netadapt_trained(
            journal, device, limit_ms, workers, options=NetAdaptOptions(budget.step_fraction), on_proposal=_say,
            on_step=lambda step: _show(step, folder, journal),
        )  # fmt: skip
        _finish(work, budget, target, found, journal, seed)
    write_pruning_steps(folder / "steps.csv", journal.steps())
    assert records.path.exists()


def _seed_ms(journal: FolderJournal, device: TableDevice, base: TrainedNetwork) -> float:
    known = journal.seed()
    return latencies_ms(device, [base.architecture])[0] if known is None else known[1]


def _say(step: int, done: int, count: int, best: float) -> None:
    print(f"step {step}: {done} of {count}, best {best:.2f}", flush=True)


def _show(step: TrainedStep, folder: Path, journal: FolderJournal) -> None:
    found = step.step
    print(f"step {found.number}: {found.change}, {found.top1:.2f} %, {found.latency_ms:.4f} ms", flush=True)
    write_pruning_steps(folder / "steps.csv", journal.steps())


def _finish(work: Path, budget: Budget, target: float, found: Narrowed, journal: FolderJournal, seed: int) -> None:
    from mnv3search.training.data.images import DataSplits
    from mnv3search.training.steps import plain_copy

    number = next(s.step.number for s in found.steps if s.step.latency_ms <= target * found.seed_latency_ms)
    steps = found.steps[:number]
    splits: DataSplits = data()
    train_and_judge(
        f"netadapt-{target:g}", plain_copy(journal.network(number).network), splits,
        recipe(budget.long_epochs, budget.long_rate), seed, work, Records(work), target=target, steps=number,
        proposals=sum(s.step.proposals for s in steps), proposal_images=sum(s.trained for s in steps),
        scored_images=sum(s.step.proposals for s in steps) * found.seed.images,
        table_share=steps[-1].step.latency_ms / found.seed_latency_ms,
    )  # fmt: skip
