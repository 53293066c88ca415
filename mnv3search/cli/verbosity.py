"""``--quiet`` and ``--verbose``, which every command takes."""

from __future__ import annotations

import click

_given: set[str] = set()


def reset() -> None:
    """Forget what an earlier command line of this process said."""
    _given.clear()


def quiet() -> bool:
    """Whether progress is not to be shown."""
    return "quiet" in _given


def verbose() -> bool:
    """Whether an error is to say where it was raised."""
    return "verbose" in _given


def add_options(command: click.Command) -> click.Command:
    """``command``, and those below it, with both options."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_options(below)
    elif not any(parameter.name == "quiet" for parameter in command.params):
        command.params += [
            click.Option(
                ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_note,
                help="No progress on stderr; results and errors are printed.",
            ),
            click.Option(
                ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_note,
                help="Where an error was raised, with the error.",
            ),
        ]  # fmt: skip
    return command


def _note(_: click.Context, option: click.Parameter, given: bool) -> None:
    if given and option.name:
        _given.add(option.name)
