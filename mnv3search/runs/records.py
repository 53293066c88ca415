"""The tables of a run folder: candidates, front and NetAdapt's steps, as CSV that people and programs read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mnv3search.architecture import Architecture
from mnv3search.architecture_json import from_mapping, to_mapping
from mnv3search.candidate import Candidate
from mnv3search.errors import ArchitectureError, RunError
from mnv3search.files import write_text
from mnv3search.layer_search import Step

Parsed = TypeVar("Parsed")
MAX_TABLE_BYTES = 512_000_000
_CANDIDATE_COLUMNS = (
    "number", "top1", "top1_std", "latency_ms", "madds", "parameters", "origin", "blocks", "architecture",
)  # fmt: skip
_STEP_COLUMNS = (
    "finalist", "number", "kind", "change", "top1", "top1_std", "latency_ms", "delta_top1", "delta_latency_ms",
    "proposals", "required_ms", "architecture",
)  # fmt: skip


def write_candidates(path: Path, candidates: Iterable[Candidate]) -> None:
    """One row a candidate, in order; ``blocks`` is the architecture's short line, ``architecture`` all of it as JSON."""
    rows = (
        (
            c.number, repr(c.top1), _optional(c.top1_std), repr(c.latency_ms), c.madds, c.parameters, c.origin,
            str(c.architecture), _compact(c.architecture),
        )
        for c in candidates
    )  # fmt: skip
    write_text(path, _csv(_CANDIDATE_COLUMNS, rows))


def read_front(path: Path) -> list[Architecture]:
    """The architectures of a run's ``pareto.csv``.

    Raises:
        RunError: a missing or damaged file; the message names the line.
    """
    return list(_read(path, _CANDIDATE_COLUMNS, lambda row: from_mapping(json.loads(row["architecture"]))))


def write_steps(path: Path, steps: Mapping[int, Sequence[Step]]) -> None:
    """One row a step; ``finalist`` counts from 1; ``architecture`` is JSON, so that a run can go on from it."""
    rows = (
        (
            finalist, s.number, s.kind, s.change, repr(s.top1), _optional(s.top1_std), repr(s.latency_ms),
            repr(s.delta_top1), repr(s.delta_latency_ms), s.proposals, repr(s.required_ms),
            _compact(s.architecture),
        )
        for finalist, found in steps.items()
        for s in found
    )  # fmt: skip
    write_text(path, _csv(_STEP_COLUMNS, rows))


def read_steps(path: Path) -> dict[int, list[Step]]:
    """The steps of an earlier call, by finalist; empty where the file does not exist.

    Raises:
        RunError: a damaged file; the message names the line.
    """
    found: dict[int, list[Step]] = {}
    if path.exists():
        for finalist, step in _read(path, _STEP_COLUMNS, lambda row: (int(row["finalist"]), _step(row))):
            found.setdefault(finalist, []).append(step)
    return found


def _read(path: Path, columns: Sequence[str], parse: Callable[[Mapping[str, str]], Parsed]) -> Iterator[Parsed]:
    """Every row of a table, parsed; its size, columns and rows checked."""
    csv.field_size_limit(10_000_000)
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise RunError(f"{path} has more than {MAX_TABLE_BYTES} bytes, which no run writes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from None
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise RunError(f"{path}:1: the columns must be {', '.join(columns)}")
    for row in reader:
        try:
            yield parse(row)
        except (ValueError, TypeError, KeyError, ArchitectureError) as error:
            raise RunError(f"{path}:{reader.line_num}: a damaged row: {error}") from None


def _step(row: Mapping[str, str]) -> Step:
    architecture: Architecture = from_mapping(json.loads(row["architecture"]))
    figures = {
        name: float(row[name]) for name in ("top1", "latency_ms", "delta_top1", "delta_latency_ms", "required_ms")
    }
    for name, value in figures.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return Step(
        int(row["number"]), row["kind"], row["change"], architecture, figures["top1"],
        float(row["top1_std"]) if row["top1_std"] else None, figures["latency_ms"], figures["delta_top1"],
        figures["delta_latency_ms"], int(row["proposals"]), figures["required_ms"],
    )  # fmt: skip


def _compact(architecture: Architecture) -> str:
    return json.dumps(to_mapping(architecture), separators=(",", ":"))


def _optional(value: float | None) -> str:
    return "" if value is None else repr(value)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
