"""The `docs` command: write the generated pages of `docs/` and the files of `contract/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tools import contract_files
from tools.commands_page import COMMANDS_PAGE, commands_page
from tools.file_map import TOUR_PAGE, tour_page
from tools.guarantees_page import GUARANTEES_PAGE, guarantees_page
from tools.rules_page import RULES_PAGE, rules_page
from tools.settings_page import settings_page
from tools.speed_page import speed_page
from tools.support_page import support_page
from tools.terms_page import TERMS_PAGE, terms_page
from workers.settings import CHECKOUT

SUPPORT_PAGE = CHECKOUT / "docs" / "support.md"
SETTINGS_PAGE = CHECKOUT / "docs" / "settings.md"
SPEED_PAGE = CHECKOUT / "docs" / "speed.md"
PAGES: dict[Path, Callable[[], str]] = {
    SUPPORT_PAGE: support_page,
    COMMANDS_PAGE: commands_page,
    SETTINGS_PAGE: settings_page,
    TERMS_PAGE: terms_page,
    RULES_PAGE: rules_page,
    GUARANTEES_PAGE: guarantees_page,
    SPEED_PAGE: speed_page,
    TOUR_PAGE: tour_page,
}


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail when a page is stale.")
@click.option("--breaking", is_flag=True, help="Write contract files even when that breaks clients.")
def docs(only_check: bool, breaking: bool) -> None:
    """Generate pages of docs/ and the files of contract/ from the code and the tests."""
    _write_contract(only_check=only_check, breaking=breaking)
    for path, generate in PAGES.items():
        name, page = path.relative_to(CHECKOUT), generate()
        if not only_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(page, encoding="utf-8")
            click.echo(f"Written: {name}")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            raise click.ClickException(f"{name} is stale: run `./run docs`.")
        else:
            click.echo(f"{name} is up to date.")


def _write_contract(*, only_check: bool, breaking: bool) -> None:
    breaks = [] if breaking else contract_files.breaking_changes()
    if breaks:
        raise click.ClickException(
            "These changes break clients (use --breaking to write them):\n  " + "\n  ".join(breaks)
        )
    if only_check and (stale := contract_files.stale()):
        raise click.ClickException(f"contract/ is stale ({', '.join(stale)}): run `./run docs`.")
    changed = [] if only_check else contract_files.write()
    for path in changed:
        click.echo(f"Written: contract/{path}")
    if not changed:
        click.echo("contract/ is up to date.")
