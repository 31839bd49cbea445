"""Tests of the `keys` command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import api_keys
from models.db import database as db
from workers.cli import group


def keys(*words: str) -> Result:
    return CliRunner().invoke(group, ["keys", *words])


@pytest.fixture(autouse=True)
def installation(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))


def test_key_is_shown_once_and_can_be_revoked(database_url: str) -> None:
    created = keys("create", "storefront", "--scope", "submit")
    key_id, _, secret = created.stdout.strip().partition(".")
    database = db.connect(database_url)
    with database.transaction() as conn:
        key = api_keys.load_key(conn, key_id)
    assert key is not None
    assert (key.name, key.scope, key.secret_hash) == ("storefront", "submit", api_keys.hash_secret(secret))
    listed = keys("list", "--json").stdout
    assert secret not in listed
    assert json.loads(listed)["last_used_at"] is None
    assert "storefront" in keys("list").stdout
    assert keys("revoke", "storefront").exit_code == 0
    with database.transaction() as conn:
        assert api_keys.load_key(conn, key_id) is None
    assert json.loads(keys("list", "--json").stdout)["revoked_at"] is not None
    database.dispose()


def test_name_is_given_once() -> None:
    assert keys("create", "storefront", "--scope", "read").exit_code == 0
    keys("revoke", "storefront")
    again = keys("create", "storefront", "--scope", "read")
    assert again.exit_code == 1
    assert "There is a key storefront already" in again.output
    assert keys("revoke", "storefront").exit_code == 1
    assert keys("create", "two\nlines", "--scope", "read").exit_code == 2
