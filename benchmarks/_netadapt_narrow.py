"""NetAdapt's part of the benchmark: one walk down, whole timings of its steps, and a long fine-tune at each target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._netadapt_setup import HELD_OUT, Budget, Records, base_architecture, data, multiplier, recipe
from benchmarks._netadapt_training import train_and_judge
from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.layer_search.journal import TrainedStep
from mnv3search.layer_search.netadapt import NetAdaptOptions, latencies_ms, plan_step
from mnv3search.layer_search.proposals import narrowest
from mnv3search.layer_search.scoring import Score, ShortTerm, workers_for
from mnv3search.layer_search.trained import CALIBRATION_NETWORKS, netadapt_trained, random_narrowings
from mnv3search.report.pruning import write_pruning_steps
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.training.data.splits import NETADAPT, held_out, stable_subset

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork


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


def walk_down(work: Path, budget: Budget, seed: int) -> None:
    """NetAdapt's steps, by the table, down to ``budget.walk_to``."""
    from mnv3search.training.trained import load_trained

    base, splits, device = load_trained(work / "base"), data(), host(work)
    rest, held = held_out(splits.train, HELD_OUT, NETADAPT)
    short = ShortTerm(budget.short_steps, budget.short_batch, budget.short_rate, seed=seed)
    journal = journal_of(work, base)
    with workers_for(base, rest, stable_subset(held, budget.held_images), short, 1) as workers:
        netadapt_trained(
            journal, device, budget.walk_to * _seed_ms(journal, device, base), workers,
            options=NetAdaptOptions(budget.step_fraction), on_proposal=_say,
            on_step=lambda step: _show(step, work / "netadapt", journal),
        )  # fmt: skip


def journal_of(work: Path, base: TrainedNetwork) -> FolderJournal:
    """The walk's journal."""
    folder = work / "netadapt"
    folder.mkdir(exist_ok=True)
    return FolderJournal(folder, base)


def choose_steps(work: Path, budget: Budget) -> dict[str, Any]:
    """Time every step's network whole beside the base's, and keep for each target the first that is fast enough.

    So does ``mnv3search netadapt``: a sum over layers says less than the network's own time.

    Raises:
        DeviceError: no step is fast enough for a target; walk further down.
    """
    from mnv3search.training.trained import load_trained

    records, base = Records(work), load_trained(work / "base")
    if "steps" in records.known:
        return records.known["steps"]
    steps = journal_of(work, base).steps()
    networks = [base.architecture, *(s.step.architecture for s in steps)]
    ms = [time.latency_ms for time in TableDevice(cache_dir=work / "table").measure(networks)]
    chosen = {}
    for target in budget.targets:
        enough = [number for number, found in enumerate(ms) if found <= target * ms[0]]
        if not enough:
            raise DeviceError(f"no step is at {target:g} of the base's {ms[0]:.4f} ms; walk further down")
        chosen[f"{target:g}"] = enough[0]
    return records.keep("steps", latency_ms=ms, chosen=chosen)


def fine_tune_chosen(work: Path, budget: Budget, seed: int) -> None:
    """The long fine-tune of the network at each target."""
    from mnv3search.training.trained import load_trained

    chosen = choose_steps(work, budget)["chosen"]
    journal = journal_of(work, load_trained(work / "base"))
    for target in budget.targets:
        _finish(work, budget, target, int(chosen[f"{target:g}"]), journal, seed)


def _seed_ms(journal: FolderJournal, device: TableDevice, base: TrainedNetwork) -> float:
    known = journal.seed()
    return latencies_ms(device, [base.architecture])[0] if known is None else known[1]


def _say(step: int, done: int, count: int, best: Score) -> None:
    print(f"step {step}: {done} of {count}, best {best.top1:.2f}", flush=True)


def _show(step: TrainedStep, folder: Path, journal: FolderJournal) -> None:
    found = step.step
    print(f"step {found.number}: {found.change}, {found.top1:.2f} %, {found.latency_ms:.4f} ms", flush=True)
    write_pruning_steps(folder / "steps.csv", journal.steps())


def _finish(work: Path, budget: Budget, target: float, number: int, journal: FolderJournal, seed: int) -> None:
    from mnv3search.training.steps import plain_copy

    start, steps = journal.seed(), journal.steps()[:number]
    assert start is not None
    train_and_judge(
        f"netadapt-{target:g}", plain_copy(journal.network(number).network), data(),
        recipe(budget.long_epochs, budget.long_rate), seed, work, Records(work), target=target, steps=number,
        proposals=sum(s.step.proposals for s in steps), proposal_images=sum(s.trained for s in steps),
        scored_images=sum(s.step.proposals for s in steps) * start[0].images,
        table_share=steps[-1].step.latency_ms / start[1],
    )  # fmt: skip
