"""A pruning's journal in its folder: ``proposals.jsonl``, and the network after each step in ``steps/``.

The file is only ever appended to, a line as soon as something is known: the seed, what a step tries, each score, what
was kept. A line that a kill cut short is dropped, and what it told is done again, alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.architecture_json import from_mapping, to_mapping
from mnv3search.files import append_lines
from mnv3search.layer_search.result import Step
from mnv3search.layer_search.trained_journal import TrainedStep
from mnv3search.layer_search.trained_proposals import Plan, Planned, Score
from mnv3search.records import read_log

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork


class FolderJournal:
    """A :class:`~mnv3search.layer_search.trained_journal.Journal` in a folder.

    ``steps/007.safetensors`` is the network after step 7, ``steps/best.safetensors`` the best proposal so far of the
    step under way.

    Raises:
        RunError: the file cannot be read, or a line other than the last is damaged.
    """

    def __init__(self, folder: Path, seed: TrainedNetwork) -> None:
        self._log = folder / "proposals.jsonl"
        self._networks = folder / "steps"
        self._best = self._networks / "best.safetensors"
        self._start = seed
        self._last: tuple[int, TrainedNetwork] = (0, seed)
        self._seed: tuple[Score, float] | None = None
        self._plans: dict[int, Plan] = {}
        self._scores: dict[int, dict[int, Score]] = {}
        self._steps: list[TrainedStep] = []
        read_log(self._log, lambda record: self._take(record.content), "line")

    def seed(self) -> tuple[Score, float] | None:
        """As the protocol."""
        return self._seed

    def keep_seed(self, score: Score, latency_ms: float) -> None:
        """As the protocol."""
        self._keep({"seed": asdict(score), "latency_ms": latency_ms})

    def steps(self) -> Sequence[TrainedStep]:
        """As the protocol."""
        return self._steps

    def network(self, number: int) -> TrainedNetwork:
        """As the protocol.

        Raises:
            WeightsError: the step's file is missing or damaged.
        """
        from mnv3search.training.trained import load_trained

        if number == 0:
            return self._start
        if self._last[0] != number:
            self._last = (number, load_trained(self.file(number)))
        return self._last[1]

    def file(self, number: int) -> Path:
        """Where the network after step ``number`` stands."""
        return self._networks / f"{number:03d}.safetensors"

    def plan(self, number: int) -> Plan | None:
        """As the protocol."""
        return self._plans.get(number)

    def keep_plan(self, number: int, plan: Plan) -> None:
        """As the protocol."""
        proposals = [{**_plain(p), "architecture": to_mapping(p.architecture)} for p in plan.proposals]
        self._keep({"step": number, "required_ms": plan.required_ms, "proposals": proposals})

    def scores(self, number: int) -> Mapping[int, Score]:
        """As the protocol."""
        return self._scores.get(number, {})

    def keep_score(self, number: int, proposal: int, score: Score, best: TrainedNetwork | None) -> None:
        """As the protocol; the weights are written first, so that what is noted as best is there."""
        from mnv3search.training.trained import save_trained

        if best is not None:
            self._networks.mkdir(exist_ok=True)
            save_trained(self._best, replace(best, facts={"step": number, "proposal": proposal}))
        self._keep({"step": number, "proposal": proposal, "score": asdict(score)})

    def best(self, number: int, proposal: int) -> TrainedNetwork | None:
        """As the protocol."""
        from mnv3search.training.trained import load_trained

        if not self._best.is_file():
            return None
        kept = load_trained(self._best)
        mine = (kept.facts.get("step"), kept.facts.get("proposal")) == (number, proposal)
        return kept if mine and kept.architecture == self._plans[number].proposals[proposal].architecture else None

    def keep_step(self, step: TrainedStep, network: TrainedNetwork) -> None:
        """As the protocol."""
        from mnv3search.training.trained import save_trained

        number = step.step.number
        self._networks.mkdir(exist_ok=True)
        save_trained(self.file(number), network)
        found = {name: getattr(step, name) for name in ("loss", "rivals", "trained", "seconds")}
        change = {f.name: getattr(step.step, f.name) for f in fields(Step) if f.name != "architecture"}
        self._keep({"step": number, "of": _place(self._plans[number], step), "kept": change, **found})
        self._last = (number, network)
        self._best.unlink(missing_ok=True)

    def _keep(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        append_lines(self._log, [text])
        self._take(json.loads(text))

    def _take(self, line: Mapping[str, Any]) -> None:
        if "seed" in line:
            self._seed = (_score(line["seed"]), _positive(line["latency_ms"]))
        elif "proposals" in line:
            planned = tuple(_planned(p) for p in line["proposals"])
            self._plans[int(line["step"])] = Plan(_positive(line["required_ms"]), planned)
        elif "score" in line:
            number, proposal = int(line["step"]), int(line["proposal"])
            if not 0 <= proposal < len(self._plans[number].proposals):
                raise ValueError(f"step {number} has no proposal {proposal}")
            self._scores.setdefault(number, {})[proposal] = _score(line["score"])
        else:
            self._steps.append(self._kept(line))

    def _kept(self, line: Mapping[str, Any]) -> TrainedStep:
        number = int(line["step"])
        if number != len(self._steps) + 1:
            raise ValueError(f"step {number} follows {len(self._steps)} others")
        planned = self._plans[number].proposals[int(line["of"])]
        step, loss = Step(**{**line["kept"], "architecture": planned.architecture}), float(line["loss"])
        if not all(math.isfinite(value) for value in (step.top1, step.latency_ms, loss)):
            raise ValueError("a figure that is not finite")
        return TrainedStep(step, loss, int(line["rivals"]), int(line["trained"]), float(line["seconds"]))


def _place(plan: Plan, step: TrainedStep) -> int:
    return next(n for n, planned in enumerate(plan.proposals) if planned.change == step.step.change)


def _plain(planned: Planned) -> dict[str, Any]:
    return {"kind": planned.kind, "change": planned.change, "latency_ms": planned.latency_ms}


def _planned(entry: Mapping[str, Any]) -> Planned:
    return Planned(
        str(entry["kind"]), str(entry["change"]), from_mapping(entry["architecture"]), _positive(entry["latency_ms"])
    )


def _score(entry: Mapping[str, Any]) -> Score:
    score = Score(**entry)
    if not (0 <= score.top1 <= 100 and math.isfinite(score.loss) and score.images > 0):
        raise ValueError(f"a score of {score.top1} % and {score.loss} nats on {score.images} images")
    return score


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{number} ms")
    return number
