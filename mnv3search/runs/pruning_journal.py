"""A pruning's journal in its folder: ``proposals.jsonl``, and the network after each step in ``steps/``.

The file is only ever appended to, a line as soon as something is known: the seed, what a step tries, each score, what
was kept. A line that a kill cut short is dropped, and what it said is done again, alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.architecture import from_mapping, to_mapping
from mnv3search.files import append_lines
from mnv3search.layer_search.journal import Journal, TrainedStep, finished_step
from mnv3search.layer_search.netadapt import MAX_STEPS
from mnv3search.layer_search.proposals import Plan, Proposal
from mnv3search.layer_search.scoring import Choice, Score
from mnv3search.records import LATENCY_MS, TOP1, Record, read_log

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

CUT_MS = (1e-15, 1e7)
MAX_LOSS, MAX_IMAGES, MAX_SECONDS = 1e9, 10**12, 1e10


class FolderJournal(Journal):
    """A journal in a folder.

    ``steps/007.safetensors`` is the network after step 7, ``steps/best.safetensors`` the best proposal so far of the
    step under way.
    """

    def __init__(self, folder: Path, seed: TrainedNetwork) -> None:
        self._log = folder / "proposals.jsonl"
        super().__init__(seed)
        self._folder = folder / "steps"
        self._best_file = self._folder / "best.safetensors"
        self._last: tuple[int, TrainedNetwork] = (0, seed)
        read_log(self._log, self._take, "line")

    def keep_seed(self, score: Score, latency_ms: float) -> None:
        """As :class:`Journal`."""
        self._keep({"seed": asdict(score), "latency_ms": latency_ms})

    def network(self, number: int) -> TrainedNetwork:
        """As :class:`Journal`."""
        from mnv3search.training.trained import load_trained

        if number == 0:
            return self._networks[0]
        if self._last[0] != number:
            self._last = (number, load_trained(self.file(number)))
        return self._last[1]

    def file(self, number: int) -> Path:
        """Where the network after step ``number`` stands."""
        return self._folder / f"{number:03d}.safetensors"

    def keep_plan(self, number: int, plan: Plan) -> None:
        """As :class:`Journal`."""
        proposals = [{**_plain(p), "architecture": to_mapping(p.architecture)} for p in plan.proposals]
        self._keep({"step": number, "required_ms": plan.required_ms, "proposals": proposals})

    def keep_score(self, number: int, proposal: int, score: Score, best: TrainedNetwork | None) -> None:
        """As :class:`Journal`; the weights are written first, so that what is noted as best is there."""
        from mnv3search.training.trained import save_trained

        if best is not None:
            self._folder.mkdir(exist_ok=True)
            save_trained(self._best_file, replace(best, facts={"step": number, "proposal": proposal}))
        self._keep({"step": number, "proposal": proposal, "score": asdict(score)})

    def best(self, number: int, proposal: int) -> TrainedNetwork | None:
        """As :class:`Journal`."""
        from mnv3search.training.trained import load_trained

        if not self._best_file.is_file():
            return None
        kept = load_trained(self._best_file)
        mine = (kept.facts.get("step"), kept.facts.get("proposal")) == (number, proposal)
        return kept if mine and kept.architecture == self._plans[number].proposals[proposal].architecture else None

    def keep_step(self, step: TrainedStep, proposal: int, network: TrainedNetwork) -> None:
        """As :class:`Journal`."""
        from mnv3search.training.trained import save_trained

        number = step.step.number
        self._folder.mkdir(exist_ok=True)
        save_trained(self.file(number), network)
        self._keep({"step": number, "of": proposal, "rivals": step.rivals})
        self._last = (number, network)
        self._best_file.unlink(missing_ok=True)

    def _keep(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        append_lines(self._log, [text])
        self._take(Record(json.loads(text)))

    def _take(self, record: Record) -> None:
        """A line: the seed first, then of each step its plan, its scores in any order, and which was kept."""
        if "seed" in record:
            if self._seed is not None:
                raise ValueError("the network is scored a second time")
            self._seed = (_score(record.record("seed")), record.number("latency_ms", *LATENCY_MS))
            return
        number = record.integer("step", 1, MAX_STEPS)
        if self._seed is None or number != len(self._steps) + 1:
            after = "the network is scored" if self._seed is None else f"step {len(self._steps)}"
            raise ValueError(f"step {number} does not follow {after}")
        if "proposals" in record:
            if number in self._plans:
                raise ValueError(f"step {number} is planned a second time")
            self._plans[number] = self._plan(record)
        elif "score" in record:
            self._take_score(number, record)
        else:
            self._steps.append(self._kept(number, record))

    def _plan(self, record: Record) -> Plan:
        from mnv3search.network.slicing import narrowing_faults

        required_ms = record.number("required_ms", *CUT_MS)
        planned = tuple(_planned(Record(p)) for p in record.list("proposals"))
        latency_ms, wide = self._before()[1], self._steps[-1].step.architecture if self._steps else None
        for one in planned:
            if one.latency_ms > (latency_ms - required_ms) * (1 + 1e-9):
                raise ValueError(f"latency_ms is {one.latency_ms}, no cut of {required_ms} from {latency_ms}")
            for fault in narrowing_faults(wide or self._networks[0].architecture, one.architecture):
                raise ValueError(f"the network before {fault.described('the proposal')}")
        return Plan(required_ms, planned)

    def _before(self) -> tuple[float, float]:
        """Top-1 and milliseconds of the last network."""
        assert self._seed is not None
        last = self._steps[-1].step if self._steps else None
        return (self._seed[0].top1, self._seed[1]) if last is None else (last.top1, last.latency_ms)

    def _take_score(self, number: int, record: Record) -> None:
        proposal, score = self._proposal(number, record, "proposal"), _score(record.record("score"))
        scores = self._scores.setdefault(number, {})
        if proposal in scores:
            raise ValueError(f"proposal {proposal} of step {number} is scored a second time")
        if self._seed is not None and score.images != self._seed[0].images:
            raise ValueError(f"the proposal is scored on {score.images} images, the network on {self._seed[0].images}")
        scores[proposal] = score

    def _kept(self, number: int, record: Record) -> TrainedStep:
        """All but the choice follows from the plan and the scores."""
        proposal, scores = self._proposal(number, record, "of"), self._scores.get(number, {})
        if len(scores) < len(self._plans[number].proposals):
            raise ValueError(f"step {number} is finished before all of its proposals are scored")
        choice = Choice(proposal, record.integer("rivals", 0, len(scores) - 1))
        return finished_step(number, self._plans[number], scores, choice, self._before())

    def _proposal(self, number: int, record: Record, name: str) -> int:
        if number not in self._plans:
            raise ValueError(f"step {number} is not planned")
        return record.integer(name, 0, len(self._plans[number].proposals) - 1)


def _plain(proposal: Proposal) -> dict[str, Any]:
    return {"kind": proposal.kind, "change": proposal.change, "latency_ms": proposal.latency_ms}


def _planned(record: Record) -> Proposal:
    return Proposal(
        record.text("kind"), record.text("change"), from_mapping(record.value("architecture")),
        record.number("latency_ms", *LATENCY_MS),
    )  # fmt: skip


def _score(record: Record) -> Score:
    return Score(
        record.number("top1", *TOP1), record.number("loss", 0, MAX_LOSS), record.integer("images", 1, MAX_IMAGES),
        record.integer("trained", 0, MAX_IMAGES), record.number("seconds", 0, MAX_SECONDS),
    )  # fmt: skip
