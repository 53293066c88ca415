"""NetAdapt with weights against width multipliers and torch-pruning's global magnitude pruner, on CIFAR-10.

    MNV3SEARCH_DATA=data python -m benchmarks.netadapt --work DIR                # every stage in order
    MNV3SEARCH_DATA=data python -m benchmarks.netadapt --work DIR --stage base   # one of them

Stages: ``table`` (layers of the first step), ``base`` (what all begin from), ``walk`` (NetAdapt's steps),
``steps`` (each timed whole: which one meets which target), ``netadapt`` (their long fine-tunes), ``ratios`` (how far
torch-pruning is to cut), ``pruner``, ``multiplier``, ``measure`` (all networks timed whole, in turn) and ``report``.
Every result is kept in DIR as soon as it is there, and a stage that was stopped goes on where it was; ``multiplier``
needs no other stage and may run beside them. ``table``, ``steps``, ``ratios`` and ``measure`` want a quiet machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks._netadapt_magnitude import choose_ratios, prune_by_magnitude
from benchmarks._netadapt_narrow import choose_steps, fine_tune_chosen, measure_table, walk_down
from benchmarks._netadapt_report import report, time_all
from benchmarks._netadapt_setup import BUDGETS, HELD_OUT, Budget, Records, base_architecture, data, multiplier, recipe
from benchmarks._netadapt_training import fresh, train_and_judge


def base(work: Path, budget: Budget, seed: int) -> None:
    """Train the network that NetAdapt and the pruner begin from, without the images that score NetAdapt's proposals."""
    network = fresh(base_architecture(), seed)
    train_and_judge("base", network, data(HELD_OUT), recipe(budget.base_epochs), seed, work, Records(work))


def multipliers(work: Path, budget: Budget, seed: int) -> None:
    """Train the width multipliers from scratch."""
    splits = data()
    for width in budget.widths:
        network = fresh(multiplier(width), seed)
        train_and_judge(
            f"multiplier-{width:g}", network, splits, recipe(budget.scratch_epochs), seed, work, Records(work),
            width=width,
        )  # fmt: skip


def table(work: Path, budget: Budget, seed: int) -> None:
    """Measure the layers that NetAdapt will ask for first."""
    measure_table(work)


def ratios(work: Path, budget: Budget, seed: int) -> None:
    """Time the pruner's networks, to cut as far as NetAdapt did."""
    choose_ratios(work, budget)


def steps(work: Path, budget: Budget, seed: int) -> None:
    """Time NetAdapt's steps whole, and choose one for each target."""
    choose_steps(work, budget)


STAGES: dict[str, Callable[[Path, Budget, int], None]] = {
    "table": table, "base": base, "walk": walk_down, "steps": steps, "netadapt": fine_tune_chosen, "ratios": ratios,
    "pruner": prune_by_magnitude, "multiplier": multipliers, "measure": time_all, "report": report,
}  # fmt: skip


def main() -> None:
    """Do the stages that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where trainings and results are kept")
    parser.add_argument("--stage", choices=tuple(STAGES), action="append", help="all unless given")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="long", help="how long everything is trained")
    parser.add_argument("--widths", type=float, nargs="+", help="only these multipliers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    budget = BUDGETS[arguments.budget]
    if arguments.widths:
        budget = replace(budget, widths=tuple(arguments.widths))
    for stage in arguments.stage or STAGES:
        STAGES[stage](arguments.work, budget, arguments.seed)


if __name__ == "__main__":
    main()
