"""The files that a finished run leaves, and the JSON by which scripts know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mnv3search.architecture import to_mapping
from mnv3search.files import write_text
from mnv3search.report.summary import Judged, RunSummary
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.records import write_candidates

if TYPE_CHECKING:
    from mnv3search.runs.outcome import RunOutcome


def judged_mapping(network: Judged) -> dict[str, object]:
    """The fields that scripts rely on; measured figures and the published top-1 only where there are some."""
    found: dict[str, object] = {
        "architecture": to_mapping(network.architecture),
        "origin": network.origin,
        "top1": network.top1,
        "top1_std": network.top1_std,
        "latency_ms": network.latency_ms,
        "latency_error_ms": network.latency_error_ms,
        "madds": network.madds,
        "parameters": network.parameters,
    }
    if network.measured_ms is not None:
        found |= {"measured_ms": network.measured_ms, "measured_error_ms": network.measured_error_ms}
    if network.published_top1 is not None:
        found["published_top1"] = network.published_top1
    return found


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


def outcome_mapping(outcome: RunOutcome) -> Mapping[str, object]:
    """What ``--json`` prints."""
    trained = outcome.summary.trained
    return {
        "no_ranking": outcome.summary.no_ranking,
        "best": judged_mapping(outcome.summary.best),
        "reference": judged_mapping(outcome.reference),
        "target_latency_ms": outcome.summary.target_latency_ms,
        "target": target_mapping(outcome.summary),
        "feasible": True,
        "evaluated": outcome.evaluated,
        "seconds": outcome.seconds,
        "out": str(outcome.folder.path),
        **({"trained": str(outcome.folder.path / trained)} if trained else {}),
        "notes": list(outcome.summary.notes),
    }


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
    folder.write_json("best.json", {**judged_mapping(summary.best), **context, "target": target_mapping(summary)})
    drawn = ParetoFigure(summary)
    drawn.save(folder.path / "pareto.png", folder.path / "pareto.svg")
    write_text(folder.path / "report.html", render_html(summary, drawn))
