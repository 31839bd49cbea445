"""What does a letter's author know?  The event's facts, the reader, and the order's parties, all as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Telling:
    """One event for one reader.  `facts` may hold more than a wording knows, and may lack what is optional."""

    event: str
    role: str
    order_id: int | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    buyer: str = ""
    seller: str = ""
