"""Runs and networks side by side, all scored by one device and one evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.accuracy.prior import RECIPES, recipe_of
from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
from mnv3search.architecture import load_architecture
from mnv3search.candidate import Candidate
from mnv3search.errors import RunError
from mnv3search.latency.devices import load_device
from mnv3search.latency.model import LatencyKind
from mnv3search.naming import parse_network
from mnv3search.report.summary import ScoredNetwork, latency_text, published_text, scored_frame, top1_text
from mnv3search.runs.artifacts import read_front
from mnv3search.runs.caveats import prior_score
from mnv3search.runs.evaluations import CachedEvaluator, Scorer, published_top1
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import session_images
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.settings import DEVICE, EVALUATOR

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Networks by what named them, all by one device and one evaluator; and the runs' fronts."""

    device: str
    device_kind: LatencyKind
    evaluator: str
    estimated: bool
    groups: Mapping[str, Sequence[ScoredNetwork]]
    fronts: Mapping[str, Sequence[Candidate]]
    score: str | None = None

    @property
    def x_label(self) -> str:
        """The latency axis."""
        return f"Latency on {self.device}, ms ({self.device_kind})"

    @property
    def y_label(self) -> str:
        """The accuracy axis."""
        if self.score:
            return f"Score by {self.evaluator} ({self.score})"
        recipe = recipe_of(self.evaluator)
        top1 = "Top-1" if not self.estimated else f"Predicted {RECIPES[recipe]}" if recipe else "Predicted top-1"
        return f"{top1} by {self.evaluator}, %"

    def to_frame(self) -> DataFrame:
        """A row a network: what named it as ``group``, and its figures; top-1 in percent, latencies in milliseconds."""
        frame = scored_frame(n for networks in self.groups.values() for n in networks)
        frame.insert(0, "group", [group for group, networks in self.groups.items() for _ in networks])
        return frame

    def table(self) -> Table:
        """A row a network."""
        from rich.table import Table

        table = Table(
            "network", title=f"{self.y_label.removesuffix(', %')}, latency on {self.device} ({self.device_kind})"
        )
        for column in (self.score or "top-1 %", "published top-1 %", "latency ms", "MAdds M", "parameters M"):
            table.add_column(column, justify="right")
        for group, networks in self.groups.items():
            for n in networks:
                table.add_row(
                    group, top1_text(n.top1, n.top1_std, estimated=self.estimated), published_text(n.published_top1),
                    latency_text(n.latency_ms, n.latency_error_ms, self.device_kind), f"{n.madds / 1e6:.1f}",
                    f"{n.parameters / 1e6:.2f}",
                )  # fmt: skip
        return table


def compared(subjects: Sequence[str], device: str | None, evaluator: str | None, progress: RunProgress) -> Comparison:
    """Score runs (folders) and networks (names, files) alike, by the first run's device and evaluator unless given."""
    runs = {s: RunFolder.open(Path(s)) for s in subjects if Path(s).is_dir() and not _holds_weights(Path(s))}
    first = next(iter(runs.values()), None)
    device = device or (first.device if first else DEVICE)
    evaluator = evaluator or (first.settings.evaluator if first else EVALUATOR)
    # networks that the first run's evaluator trained are known from its folder
    learns = first is not None and first.settings.data is not None and evaluator == first.settings.evaluator
    data, kept = (session_images(first, progress), first.proxy) if learns and first else (None, None)
    cache = CachedEvaluator(load_evaluator(evaluator, EvaluatorContext(data=data, folder=kept)))
    scorer = Scorer(load_device(device), cache, progress)
    groups: dict[str, list[ScoredNetwork]] = {}
    fronts: dict[str, list[Candidate]] = {}
    progress.stage("scoring", len(subjects))
    for number, subject in enumerate(dict.fromkeys(subjects)):
        if subject in runs:
            folder = runs[subject]
            _check_finished(folder)
            best = load_architecture(folder.path / "best.json")
            groups[subject] = [scorer.score(folder.path.name, best, "best")]
            front = enumerate(read_front(folder.path / "pareto.csv"))
            scored = [scorer.candidate(architecture, "block_search", i) for i, architecture in front]
            fronts[subject] = sorted(scored, key=lambda c: c.latency_ms)
        else:
            groups[subject] = [scorer.score(subject, parse_network(subject), "reference", published_top1(subject))]
        progress.advance(number + 1, subject)
    scores = [prior_score(evaluator, n.architecture) for networks in groups.values() for n in networks]
    score = cache.capabilities.score_name or next(filter(None, scores), None)
    return Comparison(
        scorer.device.name, scorer.device.kind, evaluator, cache.capabilities.estimated, groups, fronts, score
    )


def _holds_weights(folder: Path) -> bool:
    """Whether a folder is a training's or a pruning's, which stands for its network."""
    names = ("network.json", "best.safetensors")
    return any((folder / name).is_file() for name in names) and not RunFolder.is_one(folder)


def _check_finished(folder: RunFolder) -> None:
    if not (folder.path / "best.json").exists():
        kind = folder.settings.kind
        raise RunError(f"{folder.path} has no result yet; go on with mnv3search {kind} --resume {folder.path}")
