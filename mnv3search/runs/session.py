"""Start, resume and finish runs and prunings, each in its folder: what Python users and the command line call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mnv3search.errors import RunError, UnknownNameError
from mnv3search.latency.model import Device
from mnv3search.manifest import MANIFEST, Settings
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.folder import PruningFolder, RunFolder
from mnv3search.runs.images import identity
from mnv3search.runs.pipeline import stages
from mnv3search.runs.progress import RunProgress, SilentProgress
from mnv3search.runs.pruning import opened, pruning_stages
from mnv3search.runs.pruning_outcome import PruningOutcome
from mnv3search.runs.settings import PruningSettings, RunSettings, pruning_settings, space_settings


def run(
    space: str, target_latency: str, *, device: str | None = None, evaluator: str | None = None,
    data: str | None = None, out: str | Path | None = None, progress: RunProgress | None = None, **options: Any,
) -> RunOutcome:  # fmt: skip
    """The main job: block search over a space, then NetAdapt, as ``mnv3search run`` does it.

    Args:
        space: a space's name or YAML file.
        target_latency: such as ``"50ms"``, or ``"0.8x"`` of the space's reference.
        device: by name; the space's own where not given.
        evaluator: by name; the space's own where not given.
        data: images for an evaluator that learns from them: a folder, an archive, or ``torchvision:NAME:FOLDER``.
        out: the folder; ``runs/<date>-<space>-<target>`` where not given.
        progress: what every stage reports to; nothing is shown where not given.
        options: as the command line has them, such as ``trials``, ``seed``, ``finalists``, ``confidence``; the names
            and defaults are those of :class:`~mnv3search.runs.settings.RunSettings`.

    Returns:
        What was found: ``outcome.summary.best`` is the winner, ``outcome.to_frame()`` every network as a table, and
        ``outcome.folder.path`` the folder, with ``report.html``. An interrupted run goes on with :func:`resume`.

    Raises:
        InfeasibleError: no network meets the target with the confidence that was asked for; no folder is left.
        Mnv3SearchError: anything else that the user can mend.
    """
    _check_names(options, RunSettings)
    settings = space_settings("run", space, target_latency, device=device, evaluator=evaluator, data=data, **options)
    return start_run(settings, _path(out), progress=progress)


def prune(
    run: str | Path, data: str | Path, target_latency: str, *, device: str | None = None,
    out: str | Path | None = None, workers: int | None = None, progress: RunProgress | None = None, **options: Any,
) -> PruningOutcome:  # fmt: skip
    """NetAdapt with weights: narrow a trained network to a latency, as ``mnv3search netadapt RUN --data`` does it.

    Args:
        run: a trained network: a training's folder or a ``.safetensors`` file; with ``weights`` a network's name.
        data: the images that it was trained on.
        target_latency: such as ``"3ms"``, or ``"0.6x"`` of the network's own.
        device: by name; this machine (``host``) where not given.
        out: the folder; ``runs/<date>-<run>-pruned-<target>`` where not given. Its ``best.safetensors`` is the result.
        workers: processes that score proposals; None for one a GPU, or a core. The result does not depend on it.
        progress: what every stage reports to; nothing is shown where not given.
        options: such as ``short_steps``, ``held_out``, ``finish``, ``weights``, ``baselines``; the names and defaults
            are those of :class:`~mnv3search.runs.settings.PruningSettings`.

    Returns:
        What was found: ``outcome.met``, ``outcome.to_frame()`` with the network before and after. An interrupted
        pruning goes on with :func:`resume`, at the proposal that was under way.

    Raises:
        InfeasibleError: no narrowing meets the target; raised before anything is trained, and no folder is left.
        Mnv3SearchError: anything else that the user can mend.
    """
    _check_names(options, PruningSettings)
    settings = pruning_settings(str(run), str(data), target_latency, device=device, **options)
    return start_pruning(settings, _path(out), workers=workers, progress=progress)


def resume(
    folder: str | Path, *, data: str | None = None, workers: int | None = None, progress: RunProgress | None = None
) -> RunOutcome | PruningOutcome:
    """Go on with a run or a pruning that was interrupted; of a finished one, say again what it found.

    Args:
        folder: of the run or the pruning.
        data: where its images are now, if they have moved.
        workers: processes that score a pruning's proposals.
        progress: what every stage reports to; nothing is shown where not given.

    Raises:
        RunError: no such folder, or a damaged one.
        Mnv3SearchError: anything else that the user can mend.
    """
    path = _path(folder)
    if path is None:
        raise RunError("an empty text names no folder; give that of a run or a pruning")
    if PruningFolder.is_one(path):
        return resume_pruning(path, data=data, workers=workers, progress=progress)
    if not RunFolder.is_one(path) and not (path / MANIFEST).exists():
        raise RunError(f"{path} holds no {MANIFEST}: give the folder of a run or a pruning (runs/DATE-...)")
    return resume_run(path, data=data, progress=progress)


def start_run(
    settings: RunSettings, out: Path | None = None, *, device: Device | None = None,
    progress: RunProgress | None = None,
) -> RunOutcome:  # fmt: skip
    """Do a run in a new folder; ``device`` stands in for the one that ``settings`` names."""
    folder = RunFolder.create(out, settings)
    with folder.session(resumed=False):
        return stages(folder, progress or SilentProgress(), device)


def resume_run(
    path: Path, *, data: str | None = None, device: Device | None = None, progress: RunProgress | None = None
) -> RunOutcome:
    """Go on with the run of a folder."""
    folder = RunFolder.open(path)
    if data is not None:
        folder.data_are_at(data)
    with folder.session(resumed=True):
        return stages(folder, progress or SilentProgress(), device)


def start_pruning(
    settings: PruningSettings, out: Path | None = None, *, device: Device | None = None, workers: int | None = None,
    progress: RunProgress | None = None,
) -> PruningOutcome:  # fmt: skip
    """Prune in a new folder; ``device`` stands in for the one that ``settings`` names."""
    if out is not None:
        PruningFolder.check_free(out)  # before the images are scanned, which can take minutes
    progress = progress or SilentProgress()
    seed, data = opened(settings, progress)
    folder = PruningFolder.create(out, settings, seed, identity(data.splits))
    with folder.session(resumed=False):
        return pruning_stages(folder, progress, device, workers, (seed, data))


def resume_pruning(
    path: Path, *, data: str | None = None, device: Device | None = None, workers: int | None = None,
    progress: RunProgress | None = None,
) -> PruningOutcome:  # fmt: skip
    """Go on with the pruning of a folder, to the same result."""
    folder = PruningFolder.open(path)
    if data is not None:
        folder.data_are_at(data)
    with folder.session(resumed=True):
        return pruning_stages(folder, progress or SilentProgress(), device, workers, None)


def _path(text: str | Path | None) -> Path | None:
    """Where a path was given; an empty text is none, and never the current folder."""
    return None if text is None or text == "" else Path(text)


def _check_names(options: Mapping[str, Any], settings: type[Settings]) -> None:
    known = {field.name for field in fields(settings)}
    for name in options.keys() - known:
        raise UnknownNameError("option", name, known)
