"""``mnv3search completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from mnv3search.cli.output import examples


@click.command(
    "completion",
    epilog=examples(
        'eval "$(mnv3search completion bash)"',
        "mnv3search completion zsh > ~/.zfunc/_mnv3search",
        "mnv3search completion fish > ~/.config/fish/completions/mnv3search.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that completes commands, options and names of spaces in SHELL.

    Put the first example into ~/.bashrc.
    """
    from mnv3search.cli.group import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "mnv3search", "_MNV3SEARCH_COMPLETE").source())
