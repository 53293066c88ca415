"""A console that shows what a terminal would obey: names of files and classes may hold anything."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from mnv3search.cli.output import shown


class ShowingConsole(Console):
    """Prints every string, those in tables included, as ``shown``."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as rich's text."""
        return super().render_str(shown(text), **options)
