"""Runs: what a command was asked, the folder that it fills, and the stages that fill it."""

from __future__ import annotations

from mnv3search.runs.folder import RunFolder
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.pipeline import netadapt_run, search_run, whole_run
from mnv3search.runs.session import resume, run
from mnv3search.runs.settings import RunSettings

__all__ = ["RunFolder", "RunOutcome", "RunSettings", "netadapt_run", "resume", "run", "search_run", "whole_run"]
