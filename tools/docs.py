"""How are the pages made that must never disagree with the code?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tools import contract_files
from tools.guarantees_page import GUARANTEES_PAGE, guarantees_page
from tools.rules_page import RULES_PAGE, rules_page
from tools.settings_page import settings_page
from tools.speed_page import speed_page
from tools.support_page import support_page
from workers.settings import CHECKOUT

SUPPORT_PAGE = CHECKOUT / "docs" / "support.md"
SETTINGS_PAGE = CHECKOUT / "docs" / "settings.md"
SPEED_PAGE = CHECKOUT / "docs" / "speed.md"
PAGES: dict[Path, Callable[[], str]] = {
    SUPPORT_PAGE: support_page,
    SETTINGS_PAGE: settings_page,
    RULES_PAGE: rules_page,
    GUARANTEES_PAGE: guarantees_page,
    SPEED_PAGE: speed_page,
}


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail when a page is not as it should be.")
@click.option(
    "--breaking", is_flag=True, help="Write contract files even where somebody who relies on them would break."
)
def docs(only_check: bool, breaking: bool) -> None:
    """Write the pages of docs/ that are made, and contract/, anew, from the code and the tests."""
    _contract(only_check=only_check, breaking=breaking)
    for path, made in PAGES.items():
        name, page = path.relative_to(CHECKOUT), made()
        if not only_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(page, encoding="utf-8")
            click.echo(f"Written: {name}")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            raise click.ClickException(f"{name} is stale: `./run docs` writes it anew.")
        else:
            click.echo(f"{name} is as it should be.")


def _contract(*, only_check: bool, breaking: bool) -> None:
    """The contract files: never so that a message that fitted fits no more, unless somebody insists."""
    broken = [] if breaking else contract_files.breaking_changes()
    if broken:
        raise click.ClickException("The contract would break (--breaking insists):\n  " + "\n  ".join(broken))
    if only_check and (old := contract_files.stale()):
        raise click.ClickException(f"contract/ is stale ({', '.join(old)}): `./run docs` writes it anew.")
    changed = [] if only_check else contract_files.write()
    for path in changed:
        click.echo(f"Written: contract/{path}")
    if not changed:
        click.echo("contract/ is as it should be.")
