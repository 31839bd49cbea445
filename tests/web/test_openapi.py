"""Tests of the OpenAPI document: requests that schemathesis makes from it are answered as it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.plugins.market import Market
from tests.plugins.website import Website, website
from workers.embedded.client import ServerUrls


def seed(market: Market) -> None:
    market.order(1003)


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(servers, admin, template_database, seed) as running:
        yield running


@pytest.mark.long
@pytest.mark.timeout(300)
def test_generated_requests_are_answered_as_the_document_says(site: Website, tmp_path: Path) -> None:
    # A program of its own: its plugin would load in every test run.
    words = ["-m", "schemathesis.cli", "run", f"{site.url}/openapi.json", "--max-examples", "4"]
    words += ["--header", f"Authorization: Bearer {site.new_key('staff')}", "--header", "Prefer: wait=0"]
    words += ["--phases", "examples,fuzzing", "--seed", "7", "--no-color", "--suppress-health-check", "all"]
    checks = ("not_a_server_error", "status_code_conformance", "content_type_conformance")
    words += ["--checks", ",".join((*checks, "response_schema_conformance", "ignored_auth"))]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
