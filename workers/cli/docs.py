"""How are the pages made that must never disagree with the code?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from workers.rule_page import RULE_PAGE, rule_page
from workers.settings import CHECKOUT
from workers.support_page import support_page

SUPPORT_PAGE = CHECKOUT / "docs" / "support.md"
PAGES: dict[Path, Callable[[], str]] = {SUPPORT_PAGE: support_page, RULE_PAGE: rule_page}


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail when a page is not as it should be.")
def docs(only_check: bool) -> None:
    """Write docs/support.md and docs/rules.md anew, from the code and the tests."""
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
