"""Consoles and tables for people, imported where something is printed: rich takes a third of the time of ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mnv3search.cli.output import shown


class ShowingConsole(Console):
    """Prints every string, those in tables included, as ``shown``."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as rich's text."""
        return super().render_str(shown(text), **options)

    def say(self, *lines: str) -> None:
        """Lines as they are: without markup or colour, never wrapped."""
        for line in lines:
            self.print(line, markup=False, highlight=False, soft_wrap=True)


def stdout_console() -> ShowingConsole:
    """A console on stdout; wide where the output is no terminal, so that no cell is cut."""
    console = ShowingConsole()
    return console if console.is_terminal else ShowingConsole(width=160)


def new_table(*columns: str, figures: Sequence[str] = (), title: str | None = None) -> Table:
    """A table with ``columns`` of text, then those of ``figures``, which are aligned to the right."""
    table = Table(*columns, title=None if title is None else escape(title))
    for column in figures:
        table.add_column(column, justify="right")
    return table
