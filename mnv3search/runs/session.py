"""One session of a run: its folder held, its ending noted, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from mnv3search.errors import InfeasibleError
from mnv3search.files import held
from mnv3search.latency.model import Device
from mnv3search.runs.folder import RunFolder, copy_device
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.pipeline import netadapt_run, search_run, whole_run
from mnv3search.runs.progress import RunProgress, SilentProgress
from mnv3search.runs.settings import RunKind, RunSettings

STAGES: Mapping[RunKind, Callable[[RunFolder, RunProgress, Device | None], RunOutcome]] = MappingProxyType(
    {"run": whole_run, "search": search_run, "netadapt": netadapt_run}
)


def run(
    settings: RunSettings,
    out: Path | None = None,
    *,
    device: Device | None = None,
    progress: RunProgress | None = None,
) -> RunOutcome:
    """Do a run as the command line does, in a new folder.

    The winner is ``outcome.summary.best``: on a device that can be timed with its whole measured time, which
    ``outcome.summary.verdict`` holds against the target.

    Args:
        settings: what is asked.
        out: the folder; ``runs/<date>-<subject>-<target>`` where not given.
        device: stands in for the one that ``settings`` names, so that many runs can share one.
        progress: told of every stage.

    Raises:
        InfeasibleError: no network meets the target with the confidence that was asked for; no folder is left.
        Mnv3SearchError: anything else that the user can mend.
    """
    return work(RunFolder.create(out, settings), progress or SilentProgress(), resumed=False, device=device)


def resume(
    path: Path, *, data: str | None = None, device: Device | None = None, progress: RunProgress | None = None
) -> RunOutcome:
    """Go on with the run of a folder, as :func:`run` began it.

    Args:
        path: its folder.
        data: where the images are now, if they have moved.
        device: stands in for the one that the settings name.
        progress: told of every stage.

    Raises:
        RunError: no run, or a damaged one.
        Mnv3SearchError: anything else that the user can mend.
    """
    folder = RunFolder.open(path)
    if data is not None:
        folder.data_are_at(data)
    return work(folder, progress or SilentProgress(), resumed=True, device=device)


def work(folder: RunFolder, progress: RunProgress, *, resumed: bool, device: Device | None = None) -> RunOutcome:
    """One session on ``folder``, which no other process may work on meanwhile.

    Raises:
        RunError: another process holds the folder.
        Mnv3SearchError: as the stages raise it.
    """
    with held(folder.path):
        try:
            with folder.closing_notes():
                if resumed:
                    folder.continued()
                else:
                    copy_device(folder.settings.device, folder.device_copy)
                return STAGES[folder.settings.kind](folder, progress, device)
        except InfeasibleError:
            if not resumed:
                folder.discard()
            raise
