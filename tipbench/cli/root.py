"""The top of the command line: its groups, its exit codes, and how an error becomes a message and a code."""

from __future__ import annotations

from typing import Any

import click

from tipbench import __version__
from tipbench.errors import TipbenchError
from tipbench.outcome import leave

EXIT_INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0  done
  2  usage, or a bad input file
  3  the RAM policy refused every model
  4  finished, but some cells failed (all the rest is saved)
  5  a service cannot be reached
  130  interrupted; the same command resumes"""


class InOrder(click.Group):
    """Lists its commands in the order in which one uses them."""

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
            click.echo("\nInterrupted. What was finished is saved; the same command resumes.", err=True)
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
