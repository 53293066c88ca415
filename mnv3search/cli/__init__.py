"""The command line: one file a command; each parses and composes, none holds logic."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
import traceback

import click

from mnv3search.cli import verbosity
from mnv3search.errors import InfeasibleError, Mnv3SearchError

COMMANDS = (
    "run", "search", "netadapt", "count", "latency", "profile", "tables", "compare", "spaces", "devices", "device",
    "train", "evaluate", "predict", "export", "completion",
)  # fmt: skip
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
KEPT_IN_TABLES = "the latency table keeps the layers that were measured: the same command goes on"
KEPT = {"profile": KEPT_IN_TABLES, "latency": KEPT_IN_TABLES}
"""What stays after Ctrl-C; folders that can be gone on with say so themselves, in notes of the interrupt."""


class Group(click.Group):
    """Prints its help when it is called alone, and names the nearest command when one is not known."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words after the group's own options; none print the help."""
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names.

        Raises:
            click.UsageError: there is none; the message names the nearest.
        """
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names, n=2, cutoff=0.6)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
            raise click.UsageError(f"no such command {args[0]!r}; {remedy}", ctx)
        return super().resolve_command(ctx, args)


class _LazyGroup(Group):
    """Imports a command's file only when that command, or the list of all, is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mnv3search.cli.{cmd_name}_command")
        command: click.Command = module.command
        return verbosity.add_options(command)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Main job:  mnv3search run --space mnv3_large --target-latency 50ms",
)
@click.version_option(None, "-V", "--version", package_name="mnv3search")
def cli() -> None:
    """Find the most accurate mobile network that is fast enough on your device.

    Block search over MobileNetV3-style blocks, then NetAdapt over layers, beside the published networks.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and turns every foreseen error into one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbosity.reset()
    try:
        code = cli.main(arguments, prog_name="mnv3search", standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except (click.Abort, KeyboardInterrupt) as stopped:
        _notice("; ".join(["interrupted", *_kept(arguments, stopped)]))
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        _error(_click_message(error))
        code = EXIT_BAD_INPUT
    except Mnv3SearchError as error:
        if "--json" in arguments and isinstance(error, InfeasibleError):
            figures = {"feasible": False, "fastest_ms": error.fastest_ms, "slowest_ms": error.slowest_ms}
            sys.stdout.write(json.dumps(figures) + "\n")
        _error(str(error))
        code = EXIT_BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: nothing is left to say, and no one to say it to
        code = 0
    except OSError as error:  # a full disk, a folder that went away, no permission
        where = f"{error.filename}: " if error.filename else ""
        _error(f"{where}{error.strerror or error}; what was written before is intact: mend that, then resume")
        code = EXIT_BAD_INPUT
    sys.exit(code if isinstance(code, int) else 0)


def _click_message(error: click.ClickException) -> str:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    return error.format_message() + hint


def _kept(arguments: list[str], stopped: BaseException) -> list[str]:
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in KEPT:
        return [KEPT[command]]
    return list(getattr(stopped.__cause__ or stopped, "__notes__", []))  # click wraps an interrupt in its Abort


def _error(text: str) -> None:
    if verbosity.verbose():
        traceback.print_exc()
    sys.stderr.write("error: " + " ".join(text.split()) + "\n")


def _notice(text: str) -> None:
    sys.stderr.write(text + "\n")
