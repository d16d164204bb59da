"""The top of the command line: its groups, its exit codes, and how an error becomes a message and a code."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from tipbench import __version__
from tipbench.ending import INTERRUPTED, WORDS
from tipbench.errors import TipbenchError
from tipbench.outcome import leave

EXIT_INTERRUPTED = INTERRUPTED

EXIT_CODES = """\b
Exit codes:
  0  done
  2  usage, or a bad input file
  3  the RAM policy refused every model
  4  finished, but some cells failed (all the rest is saved)
  5  a service cannot be reached
  6  a gate failed: compare --fail-on
  130  interrupted; the same command resumes"""


class Command(click.Command):
    """A command that never takes the last of several values in silence: an option that is given twice adds up, or is refused."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own, after a look at which options were given how often."""
        given, counts = list(args), Counter[str]()
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=given)
            counts.update(param.name or "" for param in order if isinstance(param, click.Option) and _takes_one(param))
        for param in self.params:
            if isinstance(param, click.Option) and counts[param.name or ""] > 1:
                raise click.UsageError(
                    f"{' / '.join(param.opts)} is given {counts[param.name or '']} times; give it once.", ctx
                )
        return super().parse_args(ctx, args)


def _takes_one(option: click.Option) -> bool:
    """False for what may be repeated: an option that adds up, and a flag that can only be set."""
    return not option.multiple and not option.count and not (option.is_flag and not option.secondary_opts)


class InOrder(click.Group):
    """Lists its commands in the order in which one uses them."""

    command_class = Command

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """As click's own; a command of another class would take the last of several values in silence."""
        if not isinstance(cmd, Command | click.Group):
            raise TypeError(f"{cmd.name}: make it with cls=Command")
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Group(InOrder):
    """Turns tipbench's errors into a message and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TipbenchError as error:
            click.echo(f"Error: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                if " " in note:
                    click.echo(f"  {note}", err=True)
            leave(ctx.invoked_subcommand or "", error.exit_code, {}, str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(WORDS, err=True)
            leave(ctx.invoked_subcommand or "", EXIT_INTERRUPTED, {}, "interrupted")
            ctx.exit(EXIT_INTERRUPTED)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES
    + "\n\n\b\nExample:\n  tipbench run --models qwen2.5:0.5b,gemma3:1b --judge terminal --out report/",
)
@click.version_option(__version__, prog_name="tipbench")
def cli() -> None:
    """Which small language model, with which prompt? Collect tips, have them judged blind, rank the cells."""
