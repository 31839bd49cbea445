"""Which commands are there, and in which module does each live?

A table of names, so that `./run --help` imports nothing and `./run show` only what it shows.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from typing import Any

import click

# name -> (module, what it does in one line for the list of commands)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("workers.cli.demo", "Play a sample marketplace live: the whole story in half a minute."),
    "up": ("workers.cli.serve", "Start servers, workers, beat, Flower and metrics; keep data between runs."),
    "down": ("workers.cli.serve", "Stop what `up --detach` left running."),
    "migrate": ("workers.cli.serve", "Bring the database schema to its newest form."),
    "env": ("workers.cli.serve", "Print where the running servers are, as lines for a shell."),
    "replay": ("workers.cli.replay", "Play a written history into a database of its own, in seconds."),
    "send": ("workers.cli.send", "Send one command through the broker and print its answer."),
    "jobs": ("workers.cli.jobs", "Look at jobs that were given up, and set them going again."),
    "pause": ("workers.cli.pause", "Have workers take nothing of a queue or a task; list what is paused."),
    "resume": ("workers.cli.pause", "End such a pause."),
    "show": ("workers.cli.show", "Show an order, a bill, a member, lots, notices, alerts or a request."),
    "credits": ("workers.cli.show", "Show where the fee credits of a seller are."),
    "forecast": ("workers.cli.show", "Show when alerts unlock in the next days, overdue ones first."),
    "explain": ("workers.cli.show", "Say what either party of an order can do, and why not."),
    "audit": ("workers.cli.audit", "Ask what must always hold; prove the bills of a month."),
    "terms": ("workers.cli.terms", "Show the terms, or apply others from a date on."),
    "import-lots": ("workers.cli.lots", "Read a store's BrickLink XML or BrickStore file into its lots."),
    "events": ("workers.cli.events", "Read what happened, by cursor, for systems that mirror it."),
    "metrics": ("workers.cli.metrics", "Serve numbers of how the installation is doing, for Prometheus."),
    "doctor": ("workers.cli.doctor", "Say what is wrong with this installation, and what mends it."),
    "backup": ("workers.cli.backup", "Write everything into one file, while work goes on."),
    "restore": ("workers.cli.backup", "Bring such a file into an empty database, and prove it."),
    "prune": ("workers.cli.prune", "Delete answers that are older than was promised to keep them."),
}

DEVELOPMENT_COMMANDS: dict[str, tuple[str, str]] = {
    "docs": ("tools.docs", "Write the pages that are made from the code."),
    "test": ("tools.develop", "Run the test suite; --all adds the long ones."),
    "bench": ("tools.develop", "Measure speed against the references; every bar as a ratio."),
    "torture": (
        "tools.develop",
        "Torment an installation of its own and see that nothing is lost, doubled or early.",
    ),
    "check": ("tools.develop", "Check format, lint, types and import contracts."),
}
"""Offered in a checkout only: the wheel and the image do not contain `tools`."""

if importlib.util.find_spec("tools") is not None:
    COMMANDS |= DEVELOPMENT_COMMANDS


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words of all commands are text: what the terminal's encoding cannot say is in no name of ours."""
        if any("\ud800" <= c <= "\udfff" for word in args for c in word):
            raise click.UsageError("One of these words is not text in the encoding of this terminal (UTF-8).", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click gives it
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click gives it
        """The list from the table alone: help must not import every command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each command explains itself: ./run COMMAND --help",
)
@click.option("--data", metavar="DIR", help="Folder for data, logs and mails instead of .unwind (or UNWIND_DATA).")
def group(data: str | None) -> None:
    """Unwind: cancelling marketplace orders the right way round - status, stock, requests and fees, exactly once."""
    choose_data(data)


def choose_data(folder: str | None) -> None:
    """`--data DIR` of any command: the same as setting UNWIND_DATA, for this process and all that it starts."""
    if folder:
        os.environ["UNWIND_DATA"] = os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111 - plain text


def data_option(command: Any) -> Any:
    """The option `--data DIR` for a command of its own (it may also stand before the command's name)."""
    return click.option(
        "--data",
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, value: choose_data(value),
        help="Folder for data, logs and mails instead of .unwind (or UNWIND_DATA).",
    )(command)


def main(words: list[str] | None = None) -> None:
    """The entry point of `./run`, `python -m workers` and `unwind`. Exit codes: 0 fine, 1 not, 2 wrong words."""
    from workers.embedded import DataDirNotAccessible, ServerBinaryNotFound, ServerStartError

    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal whose code page lacks a letter shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = group.main(args=words, prog_name="./run", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        status = 0
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        status = 130
    except (DataDirNotAccessible, ServerBinaryNotFound, ServerStartError) as error:
        click.echo(str(error), err=True)
        status = 1
    except Exception as error:
        from workers.settings import SettingsError

        sentence = str(error) if isinstance(error, SettingsError) else _unreachable(error)
        if not sentence:
            raise
        click.echo(sentence, err=True)
        status = 2 if isinstance(error, SettingsError) else 1
    sys.exit(status if isinstance(status, int) else 0)


def _unreachable(error: Exception) -> str:
    """A sentence for servers that do not answer; "" for anything else. Looks at names: importing drivers is slow."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & {"sqlalchemy.OperationalError", "psycopg.OperationalError"}:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        return f"The database does not answer (DATABASE_URL): {reason}"
    if kinds & {"kombu.OperationalError", "redis.ConnectionError"}:
        return f"The broker does not answer (CELERY_BROKER_URL): {' '.join(str(error).split())}"
    return ""
