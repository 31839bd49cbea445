"""How are the pages made that must never disagree with the code?"""

from __future__ import annotations

import click

from workers.settings import CHECKOUT
from workers.support_page import support_page

SUPPORT_PAGE = CHECKOUT / "docs" / "support.md"


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail when a page is not as it should be.")
def docs(only_check: bool) -> None:
    """Write docs/support.md anew: diagram, transition table and glossary, from the code."""
    page = support_page()
    if only_check:
        if not SUPPORT_PAGE.exists() or SUPPORT_PAGE.read_text(encoding="utf-8") != page:
            raise click.ClickException("docs/support.md is stale: `./run docs` writes it anew.")
        click.echo("docs/support.md is as it should be.")
        return
    SUPPORT_PAGE.parent.mkdir(exist_ok=True)
    SUPPORT_PAGE.write_text(page, encoding="utf-8")
    click.echo("Written: docs/support.md")
