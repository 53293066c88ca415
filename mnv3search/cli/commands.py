"""The commands by the file that holds them: ``cli/run_command.py`` holds ``run_command`` and ``search_command``."""

from __future__ import annotations

COMMANDS = {
    "run": ("run", "search"),
    "netadapt": ("netadapt",),
    "count": ("count", "spaces", "tables"),
    "latency": ("latency",),
    "device": ("profile", "devices", "device"),
    "compare": ("compare",),
    "train": ("train",),
    "evaluate": ("evaluate", "predict"),
    "export": ("export",),
    "completion": ("completion",),
}
