"""How is what happened told to people?  Plain sentences, a table where there are many of one kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import groupby
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from policies.timestamps import format_timestamp
from workers.cli.bill_page import render_text
from workers.cli.forecast_chart import forecast_chart
from workers.simulation.replay import PlayedLine


def tell(played: PlayedLine) -> None:
    """One line of a replayed history: when, what, and what came of it."""
    console = _console()
    line, result = played.line, harmless(played.result)
    console.print(Text.assemble((format_timestamp(line.at), "dim"), "  ", _what(played)))
    if line.show is None:
        console.print(Text("    " + _outcome(result), style=_STYLES.get(result["outcome"], "")))
    elif result is None:
        console.print("    There is no such thing.")
    else:
        show_to_people("explain" if line.show[0] == "explain" else str(line.show[0]), result)


def harmless(seen: Any) -> Any:
    """The same without characters that would act on a terminal instead of being read: people's comments are in it."""
    if isinstance(seen, dict):
        return {name: _lines(value) if name == "text" else harmless(value) for name, value in seen.items()}
    if isinstance(seen, list):
        return [harmless(one) for one in seen]
    if isinstance(seen, str) and not seen.isprintable():
        return "".join(c if c.isprintable() else " " if c.isspace() else f"<U+{ord(c):04X}>" for c in seen)
    return seen


def _lines(text: Any) -> Any:
    """A letter keeps its line breaks: it was made harmless line by line when it was written (policies.emails.email)."""
    return "\n".join(harmless(line) for line in text.split("\n")) if isinstance(text, str) else harmless(text)


def tell_sweep(instant: datetime, sweep: str, effects: dict[str, Any]) -> None:
    """What a sweep found between the lines, if anything."""
    found = {name: count for name, count in effects.items() if count}
    if found:
        said = ", ".join(f"{name}: {_short(count)}" for name, count in found.items())
        _console().print(Text.assemble((format_timestamp(instant), "dim"), f"  {sweep}\n    {said}"))


def show_to_people(noun: str, seen: Any) -> None:
    """What a look found, in words."""
    PAGES[noun](_console(), harmless(seen))


def _what(played: PlayedLine) -> str:
    line = played.line
    if line.show is not None:
        return str(harmless("show " + " ".join(str(word) for word in line.show)))
    arguments = line.arguments or {}
    named = [
        f"{name}={arguments[name]}"
        for name in ("order_id", "removal_id", "draft_id", "seller_id", "member_id", "buyer_id", "staff", "status")
        if isinstance(arguments.get(name), str | int)
    ]
    said: str = harmless(" ".join([line.task or "", *named]))
    return said


def _outcome(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "done":
        effects = ", ".join(f"{name}: {_short(value)}" for name, value in answer["effects"].items())
        return f"done. {effects}" if effects else "done."
    if answer["outcome"] == "invalid":
        return "invalid. " + "; ".join(f"{one['path']} {one['message']}" for one in answer["errors"])
    return f"{answer['outcome']} ({answer['code']}). {answer['message']}"


def _short(value: Any) -> str:
    written = _plain(value)
    return written if len(written) <= 100 else f"{written[:97]}..."


def _plain(value: Any) -> str:
    """JSON as a person would write it: no quotes and braces, nothing that is null."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one is not None) + ")"
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value) or "none"
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


_STYLES = {"done": "green", "refused": "yellow", "invalid": "red", "conflict": "red"}


def _order(console: Console, seen: dict[str, Any]) -> None:
    console.print(Text(f"Order {seen['order_id']} is {seen['status']}.", style="bold"))
    console.print(seen["verdict"])
    console.print(
        f"{seen['buyer_id']} bought from {seen['seller_id']} for {seen['total']} {seen['currency']} "
        f"(order date {seen['order_date']}, payment {seen['payment_status']})."
    )
    if seen["cancelled_at"]:
        console.print(f"Cancelled on {seen['cancelled_at']} by {seen['cancelled_by']}, on the ground {seen['basis']}.")
    for line in seen["lines"]:
        console.print(f"  {_line(line)}")
    if ocr := seen["ocr"]:
        console.print(f"Cancel request of the {ocr['filed_by']}: {ocr['state']}, filed {ocr['filed_at']}.")
    if alert := seen["alert"]:
        console.print(f"Alert {alert['kind']}: {alert['state']}, filed {alert['filed_at']}; {_unlock(alert)}.")
    for removal in seen["removals"]:
        console.print(f"Removal request {removal['removal_id']} of the {removal['requested_by']}: {removal['state']}.")
    console.print(_fee(seen["fee"]))
    for credit in seen["credits"]:
        console.print(f"  {credit['where']}")
    console.print("What happened:")
    for row in seen["timeline"]:
        console.print(Text.assemble("  ", (row["at"], "dim"), f"  {_mover(row)}: {row['note']}", _move(row)))
    console.print("What moved in the inventory:" if seen["stock"] else "Nothing moved in the inventory.")
    _moves(console, seen["stock"])
    console.print("Who was told:" if seen["notices"] else "Nobody was told anything.")
    _letters(console, seen["notices"])


def _moves(console: Console, moves: list[dict[str, Any]]) -> None:
    """The journal of stock, a line for each time that units left or came back."""
    for (at, kind), group in groupby(moves, key=lambda one: (one["at"], one["kind"])):
        units = ", ".join(f"{one['delta']:+} in lot {one['lot_id']} (line {one['line_no']})" for one in group)
        console.print(Text.assemble("  ", (at, "dim"), f"  {kind}: {units}"))


def _line(line: dict[str, Any]) -> str:
    said = f"Line {line['line_no']}: {line['quantity']} of lot {line['lot_id']} at {line['unit_price']}"
    if line["removed"]:
        said += f", {line['removed']} taken out"
    if line["returned"]:
        said += f", {line['returned']} returned to lot {line['returned_to_lot']}"
    return said + (f" ({line['note']})" if line["note"] else "")


def _unlock(alert: dict[str, Any]) -> str:
    answered = f"answered {alert['responded_at']}; " if alert["responded_at"] else ""
    return f"{answered}cancellation possible from {alert['unlocks_at']}"


def _fee(fee: dict[str, Any]) -> str:
    said = f"Fee: {fee['charged']} USD charged for {fee['charged_month'] or 'no month'}"
    if fee["reset"]:
        said += f", reset by {fee['reset']} in the same month"
    if fee["credit"]:
        said += f", credited {fee['credit']} on the bill of {fee['credit_month']}"
    return f"{said}; {fee['net']} USD remains."


def _mover(row: dict[str, Any]) -> str:
    return row["actor"] if row["role"] == "system" else f"{row['actor']} ({row['role']})"


def _move(row: dict[str, Any]) -> str:
    return f"  [{row['from'] or 'new'} → {row['to']}]" if row["from"] != row["to"] else ""


def _explain(console: Console, seen: dict[str, Any]) -> None:
    console.print(Text(f"Order {seen['order_id']} is {seen['status']} (at {seen['at']}).", style="bold"))
    console.print(seen["verdict"])
    for role in ("seller", "buyer"):
        console.print(Text(f"The {role}", style="bold"))
        for option in sorted(seen[role], key=lambda one: not one["possible"]):
            if option["possible"]:
                console.print(Text(f"  can {_spoken(option)}. {option['why']}", style="green"))
            elif option["code"] != "WRONG_ROLE":  # what is never theirs to do explains nothing
                console.print(f"  cannot {_spoken(option)}: {option['why']}{_until(option)}")


SPOKEN = {
    "ocr.file": "file a cancel request",
    "ocr.decline": "decline the cancel request",
    "ocr.withdraw": "withdraw the cancel request",
    "npb.file": "file a non-paying buyer alert",
    "npb.respond": "answer the non-paying buyer alert",
    "npb.accept_penalty": "accept the penalty",
    "npb.take_back": "take the accepted penalty back",
    "npb.remove": "remove the non-paying buyer alert",
    "nrs.file": "file a non-responding seller alert",
    "nrs.respond": "answer the non-responding seller alert",
    "nrs.remove": "remove the non-responding seller alert",
    "nss.file": "file a non-shipping seller alert",
    "nss.respond": "answer the non-shipping seller alert",
    "nss.remove": "remove the non-shipping seller alert",
    "orders.cancel": "cancel the order",
    "orders.set_status": "set the status by hand",
    "drafts.open": "prepare what comes back",
    "removals.request": "ask for items to be removed",
    "removals.approve": "approve the removal request",
    "removals.deny": "deny the removal request",
    "removals.withdraw": "withdraw the removal request",
}


def _spoken(option: dict[str, Any]) -> str:
    which = f" {option['removal_id']}" if option.get("removal_id") else ""
    return f"{SPOKEN[option['action']]}{which} ({option['action']})"


def _until(option: dict[str, Any]) -> str:
    if option["possible_from"]:
        return f" Possible from {option['possible_from']}."
    return f" What would change it: {option['unblocked_by']}." if option["unblocked_by"] else ""


def _bill(console: Console, seen: dict[str, Any]) -> None:
    heading, _, rest = render_text(seen).partition("\n")
    console.print(Text(heading, "bold"))
    console.print(Text(rest), end="")


def _lots(console: Console, seen: list[dict[str, Any]]) -> None:
    table = Table("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
    for lot in seen:
        where = f"stockroom {lot['stock_room_id'] or ''}" if lot["is_stock_room"] else "for sale"
        table.add_row(
            *(str(one) for one in (lot["lot_id"], lot["item"]["no"], lot["color_id"], lot["new_or_used"])),
            *(str(one) for one in (lot["quantity"], lot["unit_price"], where)),
        )
    console.print(table if seen else "No lots.")


def _member(console: Console, seen: dict[str, Any]) -> None:
    rights = [word for word, allowed in (("buy", seen["can_buy"]), ("sell", seen["can_sell"])) if allowed]
    console.print(Text(f"{seen['member_id']} ({seen['handle']}) is {seen['state']}.", style="bold"))
    console.print(f"Privileges: {' and '.join(rights) or 'none'}.")
    console.print(f"Strikes that count: {', '.join(str(one) for one in seen['strikes']) or 'none'}.")


def _notices(console: Console, seen: list[dict[str, Any]]) -> None:
    _letters(console, seen)
    if not seen:
        console.print("Nobody was told anything.")


def _letters(console: Console, notices: list[dict[str, Any]]) -> None:
    for one in notices:
        console.print(
            Text.assemble("  ", (one["sent_at"] or one["state"], "dim"), f"  to {one['recipient']}: {one['subject']}")
        )
        console.print(Text(indent(one["text"], "      "), style="dim"))


def _alerts(console: Console, seen: list[dict[str, Any]]) -> None:
    for one in seen:
        console.print(f"  {one['unlocks_at']:<22} order {one['order_id']}: {one['kind']}, order {one['status']}")
    if not seen:
        console.print("No alert is due by then.")


def _request(console: Console, seen: dict[str, Any]) -> None:
    if seen["state"] == "waiting":
        when = f" since {seen['submitted_at']}" if seen["submitted_at"] else ""
        console.print(Text(f"Request {seen['request_id']}: {seen['task']}, waiting{when} for a worker.", style="bold"))
        return
    if seen["state"] == "dead":
        console.print(
            Text(f"Request {seen['request_id']}: {seen['task']}, given up {seen['answered_at']}.", style="bold")
        )
        console.print("Nothing of it happened. ./run jobs dead says why, ./run jobs replay ID sets it going again.")
        return
    console.print(Text(f"Request {seen['request_id']}: {seen['task']}, answered {seen['answered_at']}.", style="bold"))
    console.print(_outcome(seen["answer"]))


def _credits(console: Console, seen: dict[str, Any]) -> None:
    for one in seen["credits"]:
        order = f"Order {one['order_id']}" if one["order_id"] is not None else "By hand"
        if one["basis"] is not None:
            order += f", cancelled {one['cancelled_at']} on the ground {one['basis']}"
            order += f" (fee {one['charged']} USD, charged for {one['charged_month'] or 'no month'})"
        console.print(f"  {order}: {one['where']}")
    if not seen["credits"]:
        console.print(f"No order of {seen['seller_id']} was cancelled, and no credit was given.")


def _sweeps(console: Console, seen: list[dict[str, Any]]) -> None:
    for sweep, hours in groupby(seen, key=lambda one: one["sweep"]):
        first, *rest = hours
        console.print(Text(f"{sweep}: last ran {first['last_ran_at']}, found {first['found_ever']} ever.", "bold"))
        for one in (first, *rest):
            if one["hour"] is not None:
                late = f"; not run for {one['longest_gap_seconds']} s before" if one["longest_gap_seconds"] else ""
                console.print(
                    Text.assemble("  ", (one["hour"], "dim"), f"  found {one['found']} in {one['runs']} runs{late}")
                )
    if not seen:
        console.print("No sweep has run yet.")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=False)


PAGES: dict[str, Callable[[Console, Any], None]] = {
    "order": _order,
    "explain": _explain,
    "bill": _bill,
    "lots": _lots,
    "member": _member,
    "notices": _notices,
    "alerts": _alerts,
    "request": _request,
    "credits": _credits,
    "forecast": forecast_chart,
    "sweeps": _sweeps,
}
