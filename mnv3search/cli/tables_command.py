"""``mnv3search tables``."""

from __future__ import annotations

import click

from mnv3search.cli.output import examples, json_option, print_json, stdout_console


@click.command(
    "tables",
    epilog=examples(
        "mnv3search tables",
        "mnv3search tables --json",
    ),
)
@json_option
def command(as_json: bool) -> None:
    """The papers' tables, our counts beside them.

    Where a printed count differs, the reason is said; where none is known, that is said too.
    """
    from mnv3search.report.tables import published_tables

    tables = published_tables()
    if as_json:
        print_json({"tables": [table.to_mapping() for table in tables]})
        return
    console = stdout_console()
    for table in tables:
        console.print(table.to_rich())
