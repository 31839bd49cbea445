"""The import of a lot file into the stock: finds the lots that its entries mean, then writes them batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from models import inventory, members
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.lot_imports import ExistingItems, LotEntry, LotEntryMatcher, has_same_values, names_lot, update_problem
from policies.lots import Lot, check_recorded_lot


class LotImportAction(StrEnum):
    NEW = "new"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LotEntryMatch:
    lot_id: int
    is_same: bool


@dataclass(frozen=True, slots=True)
class ImportedLotEntry:
    """What an entry does: the lot before and after, or why it is refused. A new lot has id 0 until it is stored."""

    entry: LotEntry
    action: LotImportAction
    before: Lot | None = None
    after: Lot | None = None
    reason: str = ""

    @property
    def lot_id(self) -> int:
        lot = self.after or self.before
        return lot.lot_id if lot else self.entry.lot_id


def match_import_with_stock(
    seller_id: str, entries: Sequence[LotEntry], matcher: LotEntryMatcher
) -> dict[int, LotEntryMatch]:
    """Return the lots that entries without a number of the store mean, by position in the file.

    A number of the marketplace that the store does not know may belong to a return uploaded there.
    """
    with unit_of_work() as work:
        named = inventory.find_lots(work.conn, [entry.lot_id for entry in entries])
        unnamed = [e for e in entries if e.lot_id not in named or not names_lot(e, named[e.lot_id])]
        stock = inventory.load_stock_view(work.conn, {entry.key(seller_id) for entry in unnamed}, lock=False)
        found = ((entry, matcher.find(entry, stock.lots_of(entry.key(seller_id)))) for entry in unnamed)
        return {entry.number: LotEntryMatch(lot.lot_id, has_same_values(entry, lot)) for entry, lot in found if lot}


def import_entries(
    seller_id: str,
    entries: Sequence[LotEntry],
    matches: Mapping[int, int],
    how: ExistingItems | None,
    *,
    write: bool,
) -> list[ImportedLotEntry]:
    """Carry out the entries, unless one is refused; return what each does. `matches`: lot ids by position in the file.

    Without `write` nothing is written and no lot is locked.
    """
    with unit_of_work() as work:
        batch = _ImportBatch(work, seller_id, entries, matches, how, lock=write)
        results = [batch.add(entry) for entry in entries]
        if write and not any(result.action is LotImportAction.REFUSED for result in results):
            results = batch.write(results)
    return results


class _ImportBatch:
    def __init__(
        self,
        work: UnitOfWork[Any],
        seller_id: str,
        entries: Sequence[LotEntry],
        matches: Mapping[int, int],
        how: ExistingItems | None,
        *,
        lock: bool,
    ) -> None:
        self._work, self._seller_id, self._matches, self._how = work, seller_id, matches, how
        lock_mode = members.FOR_SHARE if lock else members.NO_LOCK
        self._seller_known = bool(members.load_members(work.conn, [seller_id], lock=lock_mode))
        ids = {entry.number: matches.get(entry.number, entry.lot_id) for entry in entries}
        self._lots: dict[int, Lot | None] = {**inventory.find_lots(work.conn, ids.values())}
        self._ids = {
            entry.number: ids[entry.number]
            for entry in entries
            if entry.number in matches or names_lot(entry, self._lots.get(entry.lot_id))
        }
        """Lot numbers by position in the file, of the entries that mean a lot of the store or name one."""
        if lock:
            self._lock(entries)

    def _lock(self, entries: Sequence[LotEntry]) -> None:
        lots = [self._lot_of(entry, self._lots.get(self._ids.get(entry.number, 0))) for entry in entries]
        reported = [lot for lot in lots if lot]
        ids = {lot.lot_id for lot in reported} | set(self._ids.values())
        self._lots = {**inventory.lock_recorded_lots(self._work.conn, ids, [lot.key for lot in reported])}

    def add(self, entry: LotEntry) -> ImportedLotEntry:
        known = self._lots.get(self._ids.get(entry.number, 0))
        lot = self._lot_of(entry, known)
        reason = self._why_refused(entry, lot, known)
        if reason or lot is None:
            return ImportedLotEntry(entry, LotImportAction.REFUSED, known, reason=reason)
        verdict = check_recorded_lot(lot, known, seller_known=self._seller_known, may_be_own=True)
        if not isinstance(verdict, Lot):
            return ImportedLotEntry(entry, LotImportAction.REFUSED, known, reason=verdict.message)
        if entry.deletes:
            self._lots[lot.lot_id] = None
            return ImportedLotEntry(entry, LotImportAction.DELETED, known)
        if known and known.lot_id != verdict.lot_id:
            self._lots[known.lot_id] = None
        if verdict.lot_id:
            self._lots[verdict.lot_id] = verdict
        changed = LotImportAction.UNCHANGED if verdict == known else LotImportAction.UPDATED
        return ImportedLotEntry(entry, changed if known else LotImportAction.NEW, known, verdict)

    def write(self, results: Sequence[ImportedLotEntry]) -> list[ImportedLotEntry]:
        conn, now = self._work.conn, self._work.now
        new_ids = iter(inventory.allocate_lot_ids(conn, sum(r.after is not None and not r.lot_id for r in results)))
        results = [
            replace(r, after=replace(r.after, lot_id=next(new_ids))) if r.after and not r.lot_id else r for r in results
        ]
        gone = [r.before for r in results if r.before and (r.after is None or r.after.lot_id != r.before.lot_id)]
        inventory.delete_lots(conn, gone, now)
        deleted = {lot.lot_id for lot in gone}
        changes = [(None if r.before and r.before.lot_id in deleted else r.before, r.after) for r in results]
        inventory.upsert_lots(conn, [(before, after) for before, after in changes if after], now)
        return results

    def _lot_of(self, entry: LotEntry, known: Lot | None) -> Lot | None:
        if known is None:
            gone = entry.is_update or entry.number in self._matches
            return None if gone else entry.as_new_lot(self._seller_id, self._ids.get(entry.number, 0))
        if entry.number not in self._matches:
            return replace(entry.applied_to(known), seller_id=self._seller_id)
        if self._how is ExistingItems.CONSOLIDATE:
            lot = replace(known, quantity=known.quantity + entry.fields["quantity"])
        else:
            lot = entry.applied_to(known)
            if self._how is ExistingItems.UPDATE:
                lot = replace(lot, quantity=known.quantity)
        return replace(lot, lot_id=entry.lot_id) if entry.has_marketplace_number else lot

    def _why_refused(self, entry: LotEntry, lot: Lot | None, known: Lot | None) -> str:
        if lot is None:
            lot_id = self._matches.get(entry.number, entry.lot_id)
            return f"the store has no lot {lot_id}: it was sold out or deleted, or the file is another store's"
        if known is not None and known.lot_id != lot.lot_id and self._lots.get(lot.lot_id) is not None:
            return f"the store has a lot {lot.lot_id} since the check"
        if entry.is_update and known is not None and known.seller_id == self._seller_id:
            return update_problem(entry, known) or "; ".join(entry.find_problems(lot, known))
        return "; ".join(entry.find_problems(lot, known))
