"""Authentication of requests by API key: `Authorization: Bearer ID.SECRET`."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from time import monotonic

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from models import api_keys
from models.api_keys import ApiKey
from models.db.database import Database
from web.problems import Problem

CACHE_SECONDS = 1.0
"""How long the result of a lookup counts: a revoked key works that much longer."""
MAX_CACHED_KEYS = 1000
_AUTHORIZATION_FORM = re.compile(r"Bearer ([a-z0-9]{1,32})\.([A-Za-z0-9_-]{1,128})")
_ALLOWED_BY_KEY_SCOPE = {"submit": ("submit",), "read": ("read",), "staff": ("submit", "read", "staff")}


class KeyRing:
    """The keys looked up in the last second, so that a busy caller costs no query at each request."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lookups: dict[str, tuple[float, asyncio.Future[ApiKey | None]]] = {}

    async def load(self, key_id: str) -> ApiKey | None:
        started_at, lookup = self._lookups.get(key_id, (0.0, None))
        if lookup is None or monotonic() - started_at >= CACHE_SECONDS:
            if len(self._lookups) >= MAX_CACHED_KEYS:
                self._lookups.clear()
            lookup = asyncio.ensure_future(run_in_threadpool(self._query_key, key_id))
            self._lookups[key_id] = (monotonic(), lookup)
        return await asyncio.shield(lookup)

    def _query_key(self, key_id: str) -> ApiKey | None:
        with self._database.transaction() as conn:
            if (key := api_keys.load_key(conn, key_id)) is not None:
                api_keys.record_use(conn, key.name, self._database.clock.now(conn))
        return key


def require(scope: str) -> Callable[[Request], Awaitable[ApiKey]]:
    """Return the dependency that admits a request whose key has `scope`: 401 without a valid key, 403 without it."""

    async def authenticate(request: Request) -> ApiKey:
        words = _AUTHORIZATION_FORM.fullmatch(request.headers.get("authorization", ""))
        keys: KeyRing = request.app.state.keys
        key = await keys.load(words[1]) if words is not None else None
        hashed = api_keys.hash_secret(words[2] if words is not None else "")
        if key is None or not hmac.compare_digest(hashed, key.secret_hash):
            raise Problem(401, "A valid API key is required.", {"WWW-Authenticate": "Bearer"})
        request.state.key_name = key.name
        if scope not in _ALLOWED_BY_KEY_SCOPE[key.scope]:
            raise Problem(403, "This API key does not allow that.")
        return key

    return authenticate
