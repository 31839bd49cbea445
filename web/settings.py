"""The settings of the HTTP process, from the environment that `./run web` has validated (workers/settings.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

DEFAULT_MAX_BODY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class WebSettings:
    database_url: str = field(repr=False)
    direct_database_url: str = field(default="", repr=False)
    address: str = "127.0.0.1"
    port: int = 0
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    link_secret: str = field(default="", repr=False)
    is_demo: bool = False

    @classmethod
    def from_environment(cls) -> WebSettings:
        return cls(
            database_url=os.environ.get("UNWIND_WEB_DATABASE_URL") or os.environ["DATABASE_URL"],
            direct_database_url=os.environ.get("UNWIND_DIRECT_DATABASE_URL") or "",
            address=os.environ.get("UNWIND_WEB_ADDRESS") or "127.0.0.1",
            port=int(os.environ.get("UNWIND_WEB_PORT") or 0),
            link_secret=os.environ.get("UNWIND_WEB_LINK_SECRET") or "",
            is_demo=os.environ.get("UNWIND_WEB_DEMO") == "1",
            max_body_bytes=int(os.environ.get("UNWIND_WEB_MAX_BODY_BYTES") or DEFAULT_MAX_BODY_BYTES),
        )
