"""The command line: parse, call a stage, print. Stages are imported when their command runs, so that --help is quick.

A module for each subject: `root` (groups, exit codes), `options` (shared options and how they are read), `services`
(store and engine from a configuration), `printing`, and the commands. A command module imports no stage at its top.
"""

from __future__ import annotations

from tipbench.cli.collecting import collect
from tipbench.cli.comparing import compare
from tipbench.cli.interchange import export_scores, import_table
from tipbench.cli.judging import judge
from tipbench.cli.looking import doctor, models, next_, plan, schema, status
from tipbench.cli.root import EXIT_CODES, EXIT_INTERRUPTED, cli
from tipbench.cli.running import run
from tipbench.cli.serving import serve

__all__ = ["EXIT_CODES", "EXIT_INTERRUPTED", "cli"]

# In the order in which one uses them.
for _command in (
    collect,
    import_table,
    judge,
    status,
    next_,
    compare,
    export_scores,
    run,
    models,
    plan,
    doctor,
    schema,
    serve,
):
    cli.add_command(_command)
