"""A seller's settings for automatic acts: their limits, changes, sentences and stored form (R114)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from policies.texts import pluralize
from policies.timestamps import describe_timestamp, format_timestamp, parse_timestamp

MAX_EXCLUDED_BUYERS = 1000
MAX_CANCEL_AFTER_UNLOCK = 30
MAX_AGREE_WITHIN = 168
MIN_FILE_NPB_AFTER, MAX_FILE_NPB_AFTER = 7, 60
_AUTOMATION_SETTING_UNITS = {
    "file_npb_after": ("day", timedelta(days=1)),
    "cancel_after_unlock": ("day", timedelta(days=1)),
    "agree_to_requests_within": ("hour", timedelta(hours=1)),
}
AUTOMATION_SETTINGS = tuple(_AUTOMATION_SETTING_UNITS)
"""The settings of a seller, by their names in commands and emails."""
OCR_SILENCE_SETTING = "OCR_SILENCE"
"""The operator's term that answers a buyer's request as the settings do; its date is that of the request (R123)."""


@dataclass(frozen=True, slots=True)
class AutomationSetting:
    value: int | str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class AutomationSettings:
    """A seller's settings for automatic acts (R114).  `excluded`: the buyers whose orders it never touches.

    A loaded case knows of the excluded buyers only its own.
    """

    file_npb_after: AutomationSetting | None = None
    cancel_after_unlock: AutomationSetting | None = None
    agree_to_requests_within: AutomationSetting | None = None
    excluded: frozenset[str] = frozenset()


NO_AUTOMATION = AutomationSettings()


def change_automation_settings(
    before: AutomationSettings, values: Mapping[str, int | None], excluded: Iterable[str] | None, now: datetime
) -> AutomationSettings:
    changed: dict[str, Any] = {}
    for name, value in values.items():
        known: AutomationSetting | None = getattr(before, name)
        if (known.value if known else None) != value:
            changed[name] = None if value is None else AutomationSetting(value, now)
    if excluded is not None:
        changed["excluded"] = frozenset(excluded)
    return replace(before, **changed)


def setting_duration(name: str, setting: AutomationSetting) -> timedelta:
    return int(setting.value) * _AUTOMATION_SETTING_UNITS[name][1]


def setting_facts(name: str, setting: AutomationSetting) -> dict[str, Any]:
    return {"setting": name, "value": setting.value, "set_at": format_timestamp(setting.set_at)}


def describe_setting(name: str, setting: AutomationSetting) -> str:
    if name == OCR_SILENCE_SETTING:
        return f"{name} = {setting.value}, in force on {describe_timestamp(setting.set_at)}"
    return f"{name} = {format_setting_value(name, int(setting.value))}, set on {describe_timestamp(setting.set_at)}"


def format_setting_value(name: str, value: int) -> str:
    unit, _ = _AUTOMATION_SETTING_UNITS[name]
    return pluralize(value, unit, f"{unit}s")


def describe_setting_changes(before: AutomationSettings, after: AutomationSettings) -> str:
    changes = []
    for name in AUTOMATION_SETTINGS:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            changes.append(f"{name}: {old.value if old else 'off'} → {new.value if new else 'off'}")
    if before.excluded != after.excluded:
        changes.append(f"excluded buyers: {len(before.excluded)} → {len(after.excluded)}")
    return f"Automation: {'; '.join(changes)}."


def settings_to_json(automation: AutomationSettings) -> dict[str, Any]:
    settings: dict[str, Any] = {
        name: {"value": setting.value, "set_at": format_timestamp(setting.set_at)}
        for name in AUTOMATION_SETTINGS
        if (setting := getattr(automation, name)) is not None
    }
    return settings | {"exclude_buyers": sorted(automation.excluded)}


def settings_from_json(written: Mapping[str, Any] | None) -> AutomationSettings:
    if not written or not any(written.values()):
        return NO_AUTOMATION
    settings = {
        name: AutomationSetting(value["value"], parse_timestamp(value["set_at"]))
        for name, value in written.items()
        if name in AUTOMATION_SETTINGS
    }
    return AutomationSettings(**settings, excluded=frozenset(written.get("exclude_buyers", ())))
