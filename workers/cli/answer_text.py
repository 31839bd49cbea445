"""The answer of a command as one line of text, for `replay` and `show request`."""

from __future__ import annotations

from typing import Any


def describe_answer(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "done":
        effects = ", ".join(f"{name}: {shorten_answer_value(value)}" for name, value in answer["effects"].items())
        return f"done. {effects}" if effects else "done."
    if answer["outcome"] == "invalid":
        return f"invalid. {describe_answer_errors(answer)}"
    return f"{answer['outcome']} ({answer['code']}). {answer['message']}"


def describe_answer_errors(answer: dict[str, Any]) -> str:
    return "; ".join(f"{error['path']} {error['message']}" for error in answer["errors"])


def shorten_answer_value(value: Any) -> str:
    text = _plain_answer_value(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _plain_answer_value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "("
            + ", ".join(f"{name} {_plain_answer_value(item)}" for name, item in value.items() if item is not None)
            + ")"
        )
    if isinstance(value, list):
        return ", ".join(_plain_answer_value(item) for item in value) or "none"
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
