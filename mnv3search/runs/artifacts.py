"""What a run leaves: its tables (candidates, front, NetAdapt's steps), its report, and its outcome as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.candidate import Candidate, Candidates
from mnv3search.errors import RunError
from mnv3search.files import write_text
from mnv3search.layer_search import Step, Steps
from mnv3search.reading import parse_json, read_bounded, utf8
from mnv3search.records import LATENCY_MS, TOP1, UNREADABLE, Record
from mnv3search.report.summary import RunSummary, ScoredNetwork, scored_frame
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.settings import MAX_FINALISTS

if TYPE_CHECKING:
    from pandas import DataFrame

Parsed = TypeVar("Parsed")
MAX_TABLE_BYTES = 512_000_000
REPORT = ("best.json", "candidates.csv", "pareto.csv", "pareto.png", "pareto.svg", "report.html")
_CANDIDATE_COLUMNS = (
    "number", "top1", "top1_std", "latency_ms", "madds", "parameters", "origin", "blocks", "architecture",
)  # fmt: skip
_STEP_COLUMNS = (
    "finalist", "number", "kind", "change", "top1", "top1_std", "latency_ms", "delta_top1", "delta_latency_ms",
    "proposals", "required_ms", "architecture",
)  # fmt: skip
_FIGURES = ("origin", "top1", "top1_std", "latency_ms", "latency_error_ms", "madds", "parameters")
_WHERE_KNOWN = ("measured_ms", "measured_error_ms", "published_top1")


def write_candidates(path: Path, candidates: Iterable[Candidate]) -> None:
    """One row a candidate, in order; ``blocks`` is the short line, ``architecture`` all of it as JSON."""
    _write(path, Candidates(candidates).to_frame(), _CANDIDATE_COLUMNS)


def read_front(path: Path) -> list[Architecture]:
    """The architectures of a run's ``pareto.csv``."""
    return list(_read(path, _CANDIDATE_COLUMNS, lambda row: from_mapping(parse_json(row.text("architecture")))))


def write_steps(path: Path, steps: Mapping[int, Sequence[Step]]) -> None:
    """One row a step; ``finalist`` counts from 1; ``architecture`` is JSON, so that a run can go on from it."""
    frame = Steps(step for found in steps.values() for step in found).to_frame()
    frame["finalist"] = [finalist for finalist, found in steps.items() for _ in found]
    _write(path, frame, _STEP_COLUMNS)


def read_steps(path: Path, accuracies: tuple[float, float] = TOP1) -> dict[int, list[Step]]:
    """The steps of an earlier call, by finalist; empty where the file does not exist.

    ``accuracies`` is the range of the evaluator's answers.
    """
    found: dict[int, list[Step]] = {}

    def take(row: Record) -> None:
        steps = found.setdefault(row.integer("finalist", 1, MAX_FINALISTS), [])
        steps.append(_step(row, len(steps) + 1, accuracies))

    if path.is_symlink() or path.exists():
        for _ in _read(path, _STEP_COLUMNS, take):
            pass
    return found


def _read(path: Path, columns: Sequence[str], parse: Callable[[Record], Parsed]) -> Iterator[Parsed]:
    """Every row of a table, parsed; its size, columns and rows checked."""
    try:
        text = utf8(read_bounded(path, MAX_TABLE_BYTES, os.O_NOFOLLOW))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"cannot read {path}: {error}") from None
    rows = csv.reader(io.StringIO(text))
    try:
        if next(rows, None) != list(columns):
            raise RunError(f"{path}:1: the columns must be {', '.join(columns)}")
        for row in rows:
            yield parse(Record(dict(zip(columns, row, strict=True)), texts=True))
    except RunError:
        raise
    except (csv.Error, *UNREADABLE) as error:
        raise RunError(f"{path}:{rows.line_num}: a damaged row: {error}; restore the file, or remove it") from None


def _step(row: Record, number: int, accuracies: tuple[float, float]) -> Step:
    low, high = accuracies
    return Step(
        row.integer("number", number, number), row.text("kind"), row.text("change"),
        from_mapping(parse_json(row.text("architecture"))), row.number("top1", low, high),
        row.optional("top1_std", 0, high), row.number("latency_ms", *LATENCY_MS),
        row.number("delta_top1", low - high, high - low), row.number("delta_latency_ms", -LATENCY_MS[1], LATENCY_MS[1]),
        row.integer("proposals", 0, 10**9), row.number("required_ms", 0, LATENCY_MS[1]),
    )  # fmt: skip


def _write(path: Path, frame: DataFrame, columns: Sequence[str]) -> None:
    """Numbers are written in full, so that they are read as they were."""
    frame["architecture"] = [json.dumps(to_mapping(a), separators=(",", ":")) for a in frame["architecture"]]
    write_text(path, frame.to_csv(columns=list(columns), index=False, lineterminator="\n"))


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run found.

    Attributes:
        summary: everything that the report shows.
        reference: the space's reference network (NetAdapt: the seed) by the same evaluator and latency model.
        evaluated: distinct architectures given to the evaluator.
        seconds: of all sessions of the run.
    """

    summary: RunSummary
    reference: ScoredNetwork
    evaluated: int
    seconds: float
    folder: RunFolder

    @property
    def met(self) -> bool:
        """Whether the winner is within the target: measured, or as predicted where the device cannot be timed."""
        return self.summary.verdict is None or self.summary.verdict.met is not False

    def to_frame(self) -> DataFrame:
        """A row a network: the winner, the finalists and the references; top-1 in percent, latencies in milliseconds.

        ``blocks`` is the architecture's short line. All candidates of the block search are in ``candidates.csv``.
        """
        return scored_frame(self.summary.everyone)

    def to_mapping(self) -> dict[str, object]:
        """What ``--json`` prints."""
        summary, path = self.summary, self.folder.path
        return {
            "no_ranking": summary.no_ranking, "best": network_mapping(summary.best),
            "reference": network_mapping(self.reference), "target_latency_ms": summary.target_latency_ms,
            "target": target_mapping(summary), "feasible": True, "evaluated": self.evaluated, "seconds": self.seconds,
            "out": str(path), **({"trained": str(path / summary.trained)} if summary.trained else {}),
            "notes": list(summary.notes),
        }  # fmt: skip


def network_mapping(network: ScoredNetwork) -> dict[str, object]:
    """The fields that scripts rely on; measured figures and the published top-1 only where there are some."""
    figures = {name: getattr(network, name) for name in (*_FIGURES, *_WHERE_KNOWN)}
    known = {name: value for name, value in figures.items() if value is not None or name in _FIGURES}
    return {"architecture": to_mapping(network.architecture), **known}


def target_mapping(summary: RunSummary) -> dict[str, object]:
    """What was asked and whether it was met; measured figures only where the device was timed.

    ``met`` is ``meets_target_measured`` where the device was timed, and else what the prediction and its error say.
    """
    best, verdict = summary.best, summary.verdict
    found: dict[str, object] = {"latency_ms": summary.target_latency_ms}
    if verdict is None:
        return found
    found |= {
        "confidence": verdict.confidence,
        "met": verdict.met is not False,
        "meets_target_measured": verdict.met,
        "margin_percent": verdict.margin_percent,
        "predicted_ms": best.latency_ms,
        "predicted_error_ms": best.latency_error_ms,
    }
    if best.measured_ms is not None:
        found |= {
            "measured_ms": best.measured_ms,
            "measured_error_ms": best.measured_error_ms,
            "timed": verdict.timed,
            "repairs": verdict.repairs,
        }
    return found


def write_report(folder: RunFolder, summary: RunSummary) -> None:
    """Every file for a reader: ``best.json``, the tables, the pictures, the page."""
    from mnv3search.report.html import render_html
    from mnv3search.report.pareto import ParetoFigure

    write_candidates(folder.path / "candidates.csv", summary.candidates)
    write_candidates(folder.path / "pareto.csv", summary.front)
    context = {"device": summary.device, "device_kind": summary.device_kind, "evaluator": summary.evaluator}
    if summary.score:
        context["score"] = summary.score  # what "top1" is
    if summary.trained:
        context["trained"] = summary.trained
    folder.write_json("best.json", {**network_mapping(summary.best), **context, "target": target_mapping(summary)})
    drawn = ParetoFigure(summary)
    drawn.save(folder.path / "pareto.png", folder.path / "pareto.svg")
    write_text(folder.path / "report.html", render_html(summary, drawn))
