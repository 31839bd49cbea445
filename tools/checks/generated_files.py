"""Check that the generated pages of `docs/`, the files of `contract/` and `.env.example` match the code."""

from __future__ import annotations

import re
from pathlib import Path

from tools import contract_files
from tools.docs import PAGES
from workers.settings import CHECKOUT, Settings

NOT_SETTINGS = {  # read by ./run and by docker compose
    "UNWIND_VENV",
    "POSTGRES_PORT",
    "REDIS_PORT",
    "FLOWER_PORT",
    "METRICS_PORT",
    "WEB_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
    "MAILPIT_PORT",
    "UNWIND_FLOWER_LOGIN_FILE",  # the only `_FILE` form that the example shows
}


def stale_files() -> list[str]:
    return [
        *(f"{path.relative_to(CHECKOUT)} is stale: run ./run docs" for path in stale_pages()),
        *(f"contract/{path} is stale: run ./run docs" for path in contract_files.stale()),
        *(f"contract/{reason}" for reason in contract_files.breaking_changes()),
        *problems_of_example((CHECKOUT / ".env.example").read_text(encoding="utf-8")),
    ]


def stale_pages() -> list[Path]:
    return [path for path, page in PAGES.items() if not path.exists() or path.read_text(encoding="utf-8") != page()]


def problems_of_example(example: str) -> list[str]:
    """Settings that `.env.example` lacks or leaves without a comment, and variables that are no settings."""
    settings = {str(field.validation_alias): field for field in Settings.model_fields.values()}
    comments = dict(re.findall(r"^(?=.*\n#?([A-Z][A-Z_]+)=)(.*)\n", example, re.MULTILINE))
    variables = set(re.findall(r"^#?([A-Z][A-Z_]+)=", example, re.MULTILINE))
    return [
        *(f".env.example lacks {name}" for name in sorted(settings.keys() - variables)),
        *(
            f".env.example has {name}, which nothing reads"
            for name in sorted(variables - settings.keys() - NOT_SETTINGS)
        ),
        *(
            f".env.example has no comment above {name}"
            for name in sorted(settings.keys() & variables)
            if not re.match(r"# \w+", comments.get(name, ""))
        ),
        *(f"{name} has no description" for name, field in settings.items() if not field.description),
    ]
