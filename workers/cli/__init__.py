"""The command line: a table of commands, each imported when it is called, and the entry point of `./run`."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys

import click

from policies.texts import is_storable
from workers.cli.options import DATA_OPTION
from workers.local.run_command import RUN_COMMAND, replace_run_command

# name -> (module, one-line description for the list of commands)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("workers.cli.demo", "Play a sample marketplace live: the whole story in half a minute."),
    "up": ("workers.cli.serve", "Start servers, workers, beat, Flower, metrics and HTTP; keep data between runs."),
    "down": ("workers.cli.serve", "Stop everything `up` has started."),
    "migrate": ("workers.cli.migrate", "Upgrade the database schema to the newest version."),
    "env": ("workers.cli.serve", "Print the addresses of the running servers as shell exports."),
    "replay": ("workers.cli.replay", "Play a written history into a separate database, in seconds."),
    "send": ("workers.cli.send", "Send one command through the broker and print its answer."),
    "jobs": ("workers.cli.jobs", "List jobs that failed for good; replay or discard them."),
    "pause": ("workers.cli.pause", "Pause a queue or a task on all workers, or list what is paused."),
    "resume": ("workers.cli.pause", "Resume a paused queue or task."),
    "show": ("workers.cli.show", "Show an order, a bill, a member, lots, notices, alerts or a request."),
    "credits": ("workers.cli.show", "Show where the fee credits of a seller are."),
    "forecast": ("workers.cli.forecast", "Show when alerts unlock in the next days, overdue ones first."),
    "explain": ("workers.cli.show", "Show what each party of an order can do, and why the rest is refused."),
    "audit": ("workers.cli.audit", "Check every invariant; prove the bills of a month."),
    "terms": ("workers.cli.terms", "Show the terms, or apply new ones with effect from a date."),
    "whatif": ("workers.cli.whatif", "Replay recorded cases under other terms, and list the differences."),
    "import-lots": ("workers.cli.import_lots", "Import a store's lots: BrickLink's XML or JSON, or a BSX file."),
    "import-orders": ("workers.cli.import_orders", "Turn BrickLink's orders into a history for a new installation."),
    "events": ("workers.cli.events", "Read the event feed by cursor, for systems that mirror it."),
    "web": ("workers.cli.web", "Serve the HTTP interface."),
    "keys": ("workers.cli.api_keys", "Create, list and revoke the API keys of the HTTP interface."),
    "webhooks": ("workers.cli.webhooks", "Send the events of the feed to endpoints, signed and in order."),
    "metrics": ("workers.cli.metrics", "Serve metrics and health probes for Prometheus."),
    "doctor": ("workers.cli.doctor", "Report what is wrong with this installation, and how to fix it."),
    "backup": ("workers.cli.backup", "Write the whole database to one file, while work goes on."),
    "restore": ("workers.cli.backup", "Restore a backup into an empty database, and verify it."),
    "prune": ("workers.cli.prune", "Delete answers that are older than their guaranteed retention."),
}

DEVELOPMENT_COMMANDS: dict[str, tuple[str, str]] = {
    "docs": ("tools.docs", "Write the pages that are generated from the code."),
    "test": ("tools.develop", "Run the test suite; --all includes the long tests."),
    "tour": ("tools.tour", "Record the terminal tour and the screenshots of the README from a real run."),
    "bench": ("tools.develop", "Measure speed against the references; every bar is a ratio."),
    "torture": ("tools.develop", "Inject faults into a separate installation and check every guarantee."),
    "rehearse": (
        "tools.rehearsal.command",
        "Start the deployments that the files describe (compose, systemd, several hosts) and kill parts of them.",
    ),
    "check": ("tools.check", "Check format, lint, types, import contracts and this repository's own rules."),
}
"""Available in a checkout only: the wheel and the image do not contain `tools`."""

if importlib.util.find_spec("tools") is not None:
    COMMANDS |= DEVELOPMENT_COMMANDS


class LazyGroup(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Undecodable bytes arrive as surrogates, which neither PostgreSQL nor JSON takes.
        if not all(map(is_storable, args)):
            raise click.UsageError("One of these arguments is not valid text in this terminal's encoding (UTF-8).", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        if cmd_name not in DEVELOPMENT_COMMANDS:
            _add_data_option(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, description) for name, (_, description) in COMMANDS.items()])


def _add_data_option(command: click.Command) -> None:
    if DATA_OPTION not in command.params:
        command.params.append(DATA_OPTION)
    for subcommand in command.commands.values() if isinstance(command, click.Group) else ():
        _add_data_option(subcommand)


@click.group(
    cls=LazyGroup,
    params=[DATA_OPTION],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"For the options of a command: {RUN_COMMAND} COMMAND --help",
)
def group() -> None:
    """Unwind: cancelling marketplace orders the right way round - status, stock, requests and fees, exactly once."""


def main(args: list[str] | None = None) -> None:
    """Run a command and exit: 0 success, 1 failure, 2 wrong arguments or settings, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a code page without a character prints its number instead
        sys.stdout.reconfigure(errors="backslashreplace")
    message = ""
    try:
        status = group.main(args=args, prog_name=RUN_COMMAND, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        status = 0
    except click.ClickException as error:
        error.message = replace_run_command(error.message)  # type: ignore[misc] # click declares it final
        error.show(shown := io.StringIO())
        message, status = shown.getvalue().rstrip("\n"), error.exit_code
    except (click.Abort, KeyboardInterrupt):
        message, status = "Interrupted.", 130
    except Exception as error:
        message, status = _exit_message_of_error(error)
        if not message:
            raise
    if message:
        from workers.cli.terminal_text import echo_literally  # noqa: PLC0415 - `./run --help` starts without rich

        echo_literally(message, err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _exit_message_of_error(error: Exception) -> tuple[str, int]:
    # A sentence for wrong settings or a server that does not answer or start, else "", and the exit code. Compares
    # names: importing the drivers is slow.
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if "workers.SettingsError" in names:
        return str(error), 2
    if names & {"workers.DataDirNotAccessible", "workers.ServerBinaryNotFound", "workers.ServerStartError"}:
        return str(error), 1
    if names & {"sqlalchemy.OperationalError", "psycopg.OperationalError"}:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        return f"The database does not answer (DATABASE_URL): {reason}", 1
    if names & {"kombu.OperationalError", "redis.ConnectionError"}:
        return f"The broker does not answer (CELERY_BROKER_URL): {' '.join(str(error).split())}", 1
    return "", 1
