"""Check the layout of the repository: packages, module names, and the links of the docs."""

from __future__ import annotations

import re
from pathlib import Path

from workers.settings import CHECKOUT

LAYERS = {"workers", "web", "schedules", "tasks", "models", "policies"}
NOT_PRODUCT = {"tests", "docs", "contract", "benchmarks", "deploy", "stress", "tools"}
WORKERS_PACKAGES = {
    "broker",
    "cli",
    "embedded",
    "group_commit",
    "local",
    "mail",
    "monitoring",
    "simulation",
    "submissions",
    "transport",
    "webhooks",
}
MAX_WORKERS_MODULES = 14
"""Modules at the top of workers/: more would hide the Celery application among them."""
MEANINGLESS_NAMES = {"utils", "helpers", "common", "core", "services", "manager"}


def layout_problems(root: Path = CHECKOUT) -> list[str]:
    return sorted([*_unknown_packages(root), *_workers(root), *_meaningless_names(root), *_broken_links(root)])


def _unknown_packages(root: Path) -> list[str]:
    """A package that the import contracts don't name would escape them."""
    with_code = {path.relative_to(root).parts[0] for path in root.glob("[!.]*/**/*.py")}
    return [f"{name}/ is neither a layer nor development code" for name in with_code - LAYERS - NOT_PRODUCT]


def _workers(root: Path) -> list[str]:
    modules = [path.stem for path in (root / "workers").glob("[!_]*.py")]
    packages = {path.parent.name for path in (root / "workers").glob("*/__init__.py")}
    problems = [f"workers/{name}/ is not one of its packages" for name in packages - WORKERS_PACKAGES]
    if len(modules) > MAX_WORKERS_MODULES:
        problems.append(f"workers/ has {len(modules)} modules at its top; at most {MAX_WORKERS_MODULES} belong there")
    return problems


def _meaningless_names(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}: the name says nothing"
        for layer in LAYERS
        for path in (root / layer).rglob("*.py")
        if path.stem in MEANINGLESS_NAMES
    ]


def _broken_links(root: Path) -> list[str]:
    return [
        f"{page.relative_to(root)} links to {target}, which does not exist"
        for page in (*root.glob("*.md"), *(root / "docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
