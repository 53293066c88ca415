"""``mnv3search spaces``."""

from __future__ import annotations

import click

from mnv3search.cli.output import examples, json_option, print_json, stdout_console


@click.command(
    "spaces",
    epilog=examples(
        "mnv3search spaces",
        "mnv3search spaces mnv3_large",
        "mnv3search spaces my.yaml --json",
    ),
)
@click.argument("names", nargs=-1, metavar="[SPACE]...")
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """The search spaces: what they hold, and their defaults.

    With a SPACE (a name or a YAML file), its choices one by one; a file is validated.
    """
    from mnv3search.space import load_space, space_names

    spaces = [load_space(name) for name in names or space_names()]
    if as_json:
        print_json(
            {
                "spaces": [
                    {
                        "name": space.name,
                        "description": space.description,
                        "size": str(space.size),
                        "reference": space.reference_name,
                        "device": space.device,
                        "evaluator": space.evaluator,
                        "parameters": {p.name: list(p.choices) for p in space.parameters},
                    }
                    for space in spaces
                ]
            }
        )
        return
    from rich.table import Table

    console = stdout_console()
    table = Table("space", "networks", "reference", "device", "evaluator", "what it is", title="Search spaces")
    for space in spaces:
        evaluator = space.evaluator or "none: give --evaluator"
        table.add_row(space.name, f"{space.size:.3g}", space.reference_label, space.device, evaluator,
                      space.description)  # fmt: skip
    console.print(table)
    for space in spaces if names else ():
        choices = Table("choice", "values", title=f"Choices of {space.name}")
        for parameter in space.parameters:
            choices.add_row(parameter.name, ", ".join(map(str, parameter.choices)))
        console.print(choices)
