"""The command line: one file a command or a few that belong together; each parses and composes, none holds logic.

This file imports next to nothing, so that a Ctrl-C is answered in order from the first moment on.
"""

from __future__ import annotations

import sys

from mnv3search.cli.commands import COMMANDS as COMMANDS
from mnv3search.cli.stopping import Stopping


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and turns every foreseen error into one line on stderr and exit code 2.

    Ctrl-C exits with 130, SIGTERM with 143, a closed terminal with 129, a pipe whose reader has gone with 141.
    ``arguments`` are given by a program that calls this, and whose signals are then its own; None for the process's.
    """
    stopping = Stopping()
    if arguments is None:
        stopping.answer_signals()
    from mnv3search.cli.group import run_command

    try:
        stopping.orderly = True
        code = run_command(sys.argv[1:] if arguments is None else arguments, stopping)
        stopping.orderly = False
    except KeyboardInterrupt:  # it came while the command's end was being reported
        code = stopping.exit_code
    sys.exit(code)
