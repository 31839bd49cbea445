"""Generator of `docs/terms.md`, from the terms themselves."""

from __future__ import annotations

from policies.term_parsing import format_term, terms_to_mapping
from policies.terms import DEFAULT_TERMS, TERM_INFO
from workers.settings import CHECKOUT

TERMS_PAGE = CHECKOUT / "docs" / "terms.md"
PAGE = """\
# Terms

`./run docs` generates this page from `policies/terms.py`, and `./run check` compares it. Terms are the durations, fees
and limits of the rules; the defaults are BrickLink's. New terms are dated: they apply to cases filed from their date
on, and a running case keeps the terms it was filed under.

```sh
./run terms show
./run terms apply terms.toml --from 2027-01-01
```

The file names only what changes:

```toml
NPB_FILE_AFTER = "5d"
STRIKE_LIMIT = 4
```

| setting | meaning | written as | default | allowed |
| --- | --- | --- | --- | --- |
{rows}
"""


def terms_page() -> str:
    return PAGE.format(
        rows="\n".join(
            f"| `{name}` | {TERM_INFO[name].about} | {TERM_INFO[name].unit} | `{format_term(default)}` "
            f"| {TERM_INFO[name].allowed} |"
            for name, default in terms_to_mapping(DEFAULT_TERMS).items()
        )
    )
