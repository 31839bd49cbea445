"""Sessions of the Problem Order page: a signed link, used once, becomes a signed cookie.

The marketplace signs links with UNWIND_WEB_LINK_SECRET. The keys of cookies and forms are derived from it: every
process accepts them, also after a restart, and no cookie is a link.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import Response

from models import web_links
from models.db.database import Database
from policies.texts import is_identifier
from web.problems import Problem

MAX_LINK_LIFETIME = timedelta(minutes=15)
SESSION_LIFETIME = timedelta(hours=2)
COOKIE = "unwind_session"
PATH = "/problem-order"
_INVALID_LINK = "This link is not valid, has expired or was used before. Get a new one from the marketplace."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in: a member, or staff by name."""

    name: str
    is_staff: bool
    session_id: str
    csrf_token: str


class Sessions:
    def __init__(self, secret: str, database: Database) -> None:
        self._secret = secret
        self._cookie_key = _derive_key(secret, "cookie")
        self._form_key = _derive_key(secret, "form")
        self._database = database

    def use_link(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid link that was not used before."""
        try:
            claims = _decode_signed(token, self._secret)
        except jwt.InvalidTokenError:
            raise Problem(401, _INVALID_LINK) from None
        lifetime, name = claims["exp"] - claims["iat"], claims["sub"]
        if not 0 < lifetime <= MAX_LINK_LIFETIME.total_seconds() or not is_identifier(name) or len(name) > 64:
            raise Problem(401, _INVALID_LINK)
        # What was signed, not the whole token: the last character of a signature has bits that mean nothing.
        link_hash = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
        with self._database.transaction() as conn:
            if not web_links.use_link(conn, link_hash, self._database.clock.now(conn)):
                raise Problem(401, _INVALID_LINK)
        return claims

    def start(self, request: Request, response: Response, claims: dict[str, Any]) -> None:
        content = {"sub": claims["sub"], "staff": claims.get("staff") is True, "sid": secrets.token_hex(8)}
        content |= {"iat": claims["iat"], "exp": claims["iat"] + int(SESSION_LIFETIME.total_seconds())}
        value = jwt.encode(content, self._cookie_key, "HS256")
        response.set_cookie(
            COOKIE, value, path=PATH, httponly=True, samesite="lax", secure=request.url.hostname not in LOOPBACK
        )

    def load(self, request: Request) -> Session:
        try:
            claims = _decode_signed(request.cookies.get(COOKIE, ""), self._cookie_key)
            session_id = str(claims["sid"])
        except (jwt.InvalidTokenError, KeyError):
            raise Problem(401, "Sign in with a new link from the marketplace.") from None
        csrf_token = hmac.new(self._form_key.encode(), session_id.encode(), "sha256").hexdigest()
        return Session(claims["sub"], claims["staff"] is True, session_id, csrf_token)


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions | None = request.app.state.sessions
    if sessions is None:
        raise Problem(404, "The Problem Order page is switched off: UNWIND_WEB_LINK_SECRET is not set.")
    return sessions


def sign_link(secret: str, name: str, now: int, *, staff: bool = False, **claims: Any) -> str:
    """Sign a link as the marketplace does: for the demo and for tests."""
    content = {"sub": name, "iat": now, "exp": now + 600, "jti": secrets.token_hex(8)} | claims
    return jwt.encode(content | ({"staff": True} if staff else {}), secret, "HS256")


def check_csrf(session: Session, token: str) -> None:
    if not hmac.compare_digest(session.csrf_token.encode(), token.encode()):
        raise Problem(403, "This form is not of your session. Open the page again.")


def _decode_signed(token: str, key: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["HS256"], options={"require": ["sub", "iat", "exp"]}, leeway=30
    )
    if not all(isinstance(claims[name], int) for name in ("iat", "exp")):
        raise jwt.InvalidTokenError("fractions of a second")
    return claims


def _derive_key(secret: str, purpose: str) -> str:
    return hmac.new(secret.encode(), f"unwind {purpose}".encode(), "sha256").hexdigest()
