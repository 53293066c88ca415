"""The group of commands, and how the end of each is reported: a line on stderr, and an exit code."""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
import traceback
from contextlib import suppress

import click

from mnv3search.cli import verbosity
from mnv3search.cli.commands import COMMANDS
from mnv3search.cli.output import escape_what_cannot_be_shown, shown
from mnv3search.cli.stopping import Stopping
from mnv3search.errors import InfeasibleError, Mnv3SearchError

EXIT_BAD_INPUT = 2
EXIT_READER_GONE = 141
KEPT_IN_TABLES = "the latency table keeps the layers that were measured: the same command goes on"
KEPT = {"profile": KEPT_IN_TABLES, "latency": KEPT_IN_TABLES}
"""What stays after Ctrl-C; folders that can be gone on with say so themselves, in notes of the interrupt."""


class Group(click.Group):
    """Prints its help when it is called alone, and names the nearest command when one is not known."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words after the group's own options; none print the help."""
        if not args and not ctx.resilient_parsing:  # which a shell's completion asks for
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], names, n=2, cutoff=0.6)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
            raise click.UsageError(f"no such command {args[0]!r}; {remedy}", ctx)
        return super().resolve_command(ctx, args)


class _LazyGroup(Group):
    """Imports a command's file only when that command, or the list of all, is asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As every group; an empty word, as of a shell variable that was not set, is never the current folder."""
        for before, word in zip(["mnv3search", *args], args, strict=False):
            if not ctx.resilient_parsing and (not word or (word.startswith("--") and word.endswith("="))):
                where = f"after {before}" if not word else f"in {word}"
                raise click.UsageError(f"an empty text {where} names nothing; give a value, or . for this folder", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command for commands in COMMANDS.values() for command in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        file = next((file for file, commands in COMMANDS.items() if cmd_name in commands), None)
        if file is None:
            return None
        module = importlib.import_module(f"mnv3search.cli.{file}_command")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return verbosity.add_options(command)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Main job:  mnv3search run --space mnv3_large --target-latency 50ms",
)
@click.version_option(None, "-V", "--version", package_name="mnv3search")
def cli() -> None:
    """Find the most accurate mobile network that is fast enough on your device.

    Block search over MobileNetV3-style blocks, then NetAdapt over layers, compared with the published networks.
    """


def run_command(arguments: list[str], stopping: Stopping) -> int:
    """Run a command; its exit code, after one line on stderr where it failed or was stopped."""
    verbosity.reset()
    escape_what_cannot_be_shown()
    try:
        code = cli.main(arguments, prog_name="mnv3search", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt) as stopped:
        _notice("; ".join(["interrupted", *_kept(arguments, stopped)]))
        return stopping.exit_code
    except click.ClickException as error:
        return _error(_click_message(error))
    except Mnv3SearchError as error:
        if "--json" in arguments and isinstance(error, InfeasibleError):
            figures = {"feasible": False, "fastest_ms": error.fastest_ms, "slowest_ms": error.slowest_ms}
            sys.stdout.write(json.dumps(figures) + "\n")
        return _error(str(error))
    except (BrokenPipeError, SystemExit) as gone:  # click makes the one of the other; a completion ends with code 0
        return 0 if getattr(gone, "code", 1) == 0 else _reader_gone()
    except OSError as error:  # a full disk, a folder that went away, no permission
        where = f"{error.filename}: " if error.filename else ""
        return _error(f"{where}{error.strerror or error}; what was written before is intact: mend that, then resume")
    return code if isinstance(code, int) else 0


def _reader_gone() -> int:
    """End as programs do whose output nobody reads on: without a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what still stands in buffers goes there
        os.dup2(nowhere, stream)
    return EXIT_READER_GONE


def _click_message(error: click.ClickException) -> str:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    return error.format_message() + hint


def _kept(arguments: list[str], stopped: BaseException) -> list[str]:
    command = next((word for word in arguments if not word.startswith("-")), "")
    notes = list(getattr(stopped.__cause__ or stopped, "__notes__", []))  # click wraps an interrupt in its Abort
    return notes or ([KEPT[command]] if command in KEPT else [])


def _error(text: str) -> int:
    if verbosity.verbose():
        traceback.print_exc()
    _notice("error: " + " ".join(text.split()))
    return EXIT_BAD_INPUT


def _notice(text: str) -> None:
    with suppress(OSError):  # a terminal that was closed reads nothing
        sys.stderr.write(shown(text) + "\n")
        sys.stderr.flush()
