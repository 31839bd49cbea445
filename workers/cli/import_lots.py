"""The `import-lots` command: checks a seller's file, imports it and prints what each entry changed.

Stores have hundreds of thousands of lots, so everything here streams in batches.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click

from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.members import load_members
from policies.lot_imports import BadEntry, ExistingItems, LotEntry, LotEntryMatcher
from policies.texts import pluralize
from tasks.lot_imports import ImportedLotEntry, LotEntryMatch, LotImportAction, import_entries, match_import_with_stock
from workers.cli.database import open_database
from workers.cli.files.lot_elements import LEFT_OUT_ELEMENTS
from workers.cli.files.lot_reader import LotFile
from workers.cli.files.xml_records import MAX_FILE_BYTES, UnreadableFile
from workers.cli.terminal_text import echo, echo_literally

LOTS_PER_IMPORT_TRANSACTION = 500  # each takes a lock per item, and the server has room for some thousands
LOTS_PER_PROGRESS_LINE = 20_000
MAX_INVALID_SHOWN = 20
IMPORT_ROW = "{!s:>6}  {!s:>12}  {!s:<9}  {!s:<16}  {!s:>10}  {!s}"


@click.command("import-lots")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seller", "seller_id", required=True, metavar="ID", help="The seller who owns these lots.")
@click.option(
    "--as",
    "how",
    type=click.Choice([str(way) for way in ExistingItems]),
    help="What an item without a lot number is that the store already has: a new lot, more units of the lot, the lot "
    "as it is from now on, or new values for it.",
)
@click.option("--update", is_flag=True, help="Carry out BrickLink's mass update: LOTID with QTY +n or -n, or DELETE.")
@click.option("--dry-run", is_flag=True, help="Show what would happen to each lot, and change nothing.")
@click.option("--skip-invalid", is_flag=True, help="Import the valid items and list the others.")
def import_lots(file: Path, seller_id: str, how: str | None, update: bool, dry_run: bool, skip_invalid: bool) -> None:
    """Import lots from BrickLink's XML or JSON, or from a BSX file of BrickStore, BrickStock or BrickSync.

    A lot with a known number (LOTID) gets the values that the file says and keeps the others; one without gets a new
    number. When an item is not a valid lot, or belongs to another seller, it is named and nothing is imported.
    """
    try:
        with _copy_of_imported_file(file) as copy, open_database() as database:
            db.set_database(database)
            lots = LotFile(copy, seller_id, is_update=update)
            _ImportLotsCommand(file.name, lots, ExistingItems(how) if how else None, dry_run, skip_invalid).run()
    except UnreadableFile as problem:
        raise click.ClickException(f"{file.name}: {problem}") from None


class _ImportLotsCommand:
    def __init__(self, name: str, lots: LotFile, how: ExistingItems | None, dry_run: bool, skip_invalid: bool) -> None:
        self._name, self._lots, self._how = name, lots, how
        self._dry_run, self._skip_invalid = dry_run, skip_invalid
        self._invalid: set[int] = set()
        self._matches: dict[int, int] = {}
        self._counts: Counter[LotImportAction] = Counter()
        self._units = 0
        lots.on_item = partial(_show_import_progress, "read")

    def run(self) -> None:
        for problem in self._lots.inspect():
            self._note_invalid_entry(problem)
        update = self._lots.first_update
        if update is not None and not self._lots.is_update:
            raise click.ClickException(
                f"{self._name} is a mass-update file: {update} says what to change of a lot, not what it is. "
                "Nothing was imported. Use --update to carry it out."
            )
        if not self._dry_run:
            self._stop_if_invalid()
        self._check_lot_entries()
        if self._dry_run:
            self._print_summary("would be imported")
        self._stop_if_invalid()
        if not self._dry_run:
            self._counts.clear()
            self._units = done = 0
            for entries in self._lot_entry_batches("imported"):
                done += self._import_batch(entries, done)
            self._print_summary("imported")

    def _check_lot_entries(self) -> None:
        with db.current_database().transaction() as conn:
            if not load_members(conn, [self._lots.seller_id]):
                raise click.ClickException(f"There is no seller {self._lots.seller_id}.")
        matcher = LotEntryMatcher(self._how, self._lots.names)
        existing = same = 0
        example: tuple[LotEntry, int] | None = None
        if self._dry_run:
            echo(IMPORT_ROW.format("Item", "Lot", "What", "Of", "Quantity", "Changes"))
        for entries in self._lot_entry_batches("checked"):
            matches: dict[int, LotEntryMatch] = {}
            if not self._lots.is_update and self._how is not ExistingItems.NEW:
                matches = retry_on_conflict(partial(match_import_with_stock, self._lots.seller_id, entries, matcher))
            if self._how is None:
                existing += len(matches)
                same += sum(match.is_same for match in matches.values())
                example = example or next(((e, matches[e.number].lot_id) for e in entries if e.number in matches), None)
            else:
                self._matches.update({number: match.lot_id for number, match in matches.items()})
            for result in self._import_lot_entries(entries, write=False):
                if result.action is LotImportAction.REFUSED:
                    self._note_invalid_entry(BadEntry(result.entry, result.reason))
                if self._dry_run:
                    match = matches.get(result.entry.number) if self._how is None else None
                    _print_import_row(result, match.lot_id if match else None)
        if example is not None:
            raise click.ClickException(_ask_for_as_option(existing, same, *example))

    def _import_batch(self, entries: list[LotEntry], done: int) -> int:
        results = self._import_lot_entries(entries, write=True)
        refused = [result for result in results if result.action is LotImportAction.REFUSED]
        if not refused:
            return len(entries)
        if not self._skip_invalid:
            before = f"The {pluralize(done, 'lot', 'lots')} before it were" if done else "Nothing was"
            raise click.ClickException(f"{self._name}: {refused[0].entry}: {refused[0].reason}. {before} imported.")
        for result in refused:
            self._note_invalid_entry(BadEntry(result.entry, result.reason))
        return self._import_batch([entry for entry in entries if entry.number not in self._invalid], done)

    def _lot_entry_batches(self, done: str) -> Iterator[list[LotEntry]]:
        entries = (entry for entry in self._lots.entries() if entry.number not in self._invalid)
        count = 0
        while batch := list(islice(entries, LOTS_PER_IMPORT_TRANSACTION)):
            yield batch
            for _ in batch:
                count += 1
                _show_import_progress(done, count)

    def _import_lot_entries(self, entries: list[LotEntry], *, write: bool) -> list[ImportedLotEntry]:
        seller_id = self._lots.seller_id
        results = retry_on_conflict(partial(import_entries, seller_id, entries, self._matches, self._how, write=write))
        if not write or all(result.action is not LotImportAction.REFUSED for result in results):
            self._counts.update(result.action for result in results)
            self._units += sum(result.after.quantity for result in results if result.after)
        return results

    def _note_invalid_entry(self, problem: BadEntry) -> None:
        self._invalid.add(problem.entry.number)
        if self._skip_invalid or len(self._invalid) <= MAX_INVALID_SHOWN:
            echo_literally(f"{self._name}: {problem}.", err=True)

    def _stop_if_invalid(self) -> None:
        bad = len(self._invalid)
        if not bad or self._skip_invalid:
            return
        more = f" ({bad - MAX_INVALID_SHOWN} more not shown)" if bad > MAX_INVALID_SHOWN else ""
        verb = "is not a valid lot" if bad == 1 else "are not valid lots"
        raise click.ClickException(
            f"{bad} of {self._lots.items} items {verb}{more}; nothing was imported. --skip-invalid imports the others."
        )

    def _print_summary(self, verb: str) -> None:
        counts, lots = self._counts, self._lots
        parts = [f"{pluralize(counts[LotImportAction.NEW], 'lot', 'lots')} {verb}"]
        parts += [f"{counts[LotImportAction.UPDATED]} updated"]
        others = (LotImportAction.UNCHANGED, LotImportAction.DELETED)
        parts += [f"{counts[action]} {action}" for action in others if counts[action]]
        parts += [f"{len(self._invalid)} skipped"] if self._invalid else []
        echo(f"{', '.join(parts)}: {pluralize(self._units, 'unit', 'units')} of {lots.seller_id}.")
        for note in self._notes_about_file():
            echo_literally(f"{self._name}: {note}", err=True)

    def _notes_about_file(self) -> Iterator[str]:
        lots = self._lots
        for element, (count, first) in lots.unread.items():
            reason = LEFT_OUT_ELEMENTS.get(element.upper(), "no field of a lot is known by this name")
            yield f"{element} of {pluralize(count, 'item', 'items')} was not read (first: {first}): {reason}."
        if lots.more_unread:
            more = pluralize(lots.more_unread, "more value has a name that is", "more values have names that are")
            yield f"{more} not known."
        if lots.excluded:
            left_out = pluralize(lots.excluded, "item was left out", "items were left out")
            yield f"{left_out}, as BrickStore excludes {'it' if lots.excluded == 1 else 'them'}."
        if lots.repairs.count:
            yield f"{lots.repairs}."


def _ask_for_as_option(existing: int, same: int, entry: LotEntry, lot_id: int) -> str:
    condition = "without a known lot number"
    items = pluralize(existing, f"item {condition} is", f"items {condition} are")
    return (
        f"{items} in the store already, {same} of them with the same values: {entry} is lot {lot_id}. Nothing was "
        "imported. Say what they are: --as new (more lots), --as consolidate (add their units to the lots), "
        "--as replace (the lots become what the file says), --as update (the same, but the lots keep their quantities)."
    )


def _print_import_row(result: ImportedLotEntry, existing_lot: int | None) -> None:
    before, after = result.before, result.after
    lot = after or before
    if result.action is not LotImportAction.UNCHANGED:
        outcome = "exists" if existing_lot else result.action
        item = f"{lot.item_type} {lot.item_no}" if lot else ""
        quantity = " → ".join(str(side.quantity) for side in (before, after) if side)
        changes = result.reason
        if before and after:
            old, new = before.snapshot(), after.snapshot()
            changes = ", ".join(
                f"{name} {_describe_lot_value(old[name])} → {_describe_lot_value(new[name])}"
                for name in new
                if new[name] != old[name]
            )
        lot_id = existing_lot or result.lot_id or ""
        echo(IMPORT_ROW.format(result.entry.number, lot_id, outcome, item, quantity, changes).rstrip())


def _show_import_progress(done: str, count: int) -> None:
    if count % LOTS_PER_PROGRESS_LINE == 0:
        echo_literally(f"{count:,} lots {done}.", err=True)


@contextmanager
def _copy_of_imported_file(file: Path) -> Iterator[BinaryIO]:
    with file.open("rb") as source, tempfile.TemporaryFile() as copy:
        left = MAX_FILE_BYTES + 1
        while left > 0 and (chunk := source.read(min(left, 1024 * 1024))):
            copy.write(chunk)
            left -= len(chunk)
        yield copy


def _describe_lot_value(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(part) for part in reversed(list(value.values())))
    text = "none" if value is None or value == "" else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
