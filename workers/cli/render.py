"""Text output of the CLI: query results and replayed histories as plain sentences and tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import groupby
from textwrap import indent
from typing import Any

from rich.table import Table
from rich.text import Text

from policies.options import ACTIONS
from policies.timestamps import describe_duration, describe_timestamp, format_timestamp, parse_timestamp
from policies.verdicts import ASK_AGAIN
from workers.cli.bill_page import render_text
from workers.cli.forecast_chart import print_forecast
from workers.cli.terminal_text import PeopleConsole
from workers.local import COMMAND
from workers.simulation.replay import PlayedLine


def print_played(played: PlayedLine) -> None:
    line, result = played.line, escape_control_characters(played.result)
    console = PeopleConsole()
    console.write(Text.assemble((format_timestamp(line.at), "dim"), "  ", _command_text(played)))
    if line.show is None:
        console.write(Text("    " + _describe_answer(result), style=_STYLES.get(result["outcome"], "")))
    elif result is None:
        console.write("    Not found.")
    if line.show is not None and result is not None:
        print_result(str(line.show[0]), result)


def print_undone(undone: list[PlayedLine]) -> None:
    console = PeopleConsole()
    console.write(Text(f"{len(undone)} {'answer is' if len(undone) == 1 else 'answers are'} not done:", style="bold"))
    for played in undone:
        answer = escape_control_characters(played.result)
        why = _describe_errors(answer) if answer["outcome"] == "invalid" else answer["message"]
        was = {"refused": "was refused", "invalid": "was invalid"}.get(answer["outcome"], "was a conflict")
        console.write(f"  line {played.line.number} {was}: {why}")


def escape_control_characters(value: Any) -> Any:
    """Replace characters in strings, at any depth, that would act on the terminal: values contain people's comments."""
    if isinstance(value, dict):
        return {
            name: _escape_lines(item) if name == "text" else escape_control_characters(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [escape_control_characters(item) for item in value]
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else " " if c.isspace() else f"<U+{ord(c):04X}>" for c in value)
    return value


def _escape_lines(text: Any) -> Any:
    # Keep the line breaks of an email: its comments were reduced to one line when it was rendered.
    if not isinstance(text, str):
        return escape_control_characters(text)
    return "\n".join(escape_control_characters(line) for line in text.split("\n"))


def print_sweep(instant: datetime, sweep: str, effects: dict[str, Any]) -> None:
    counts = {name: count for name, count in effects.items() if count}
    if counts:
        text = ", ".join(f"{name}: {_shorten_value(count)}" for name, count in counts.items())
        PeopleConsole().write(Text.assemble((format_timestamp(instant), "dim"), f"  {sweep}\n    {text}"))


def print_result(noun: str, result: Any, **options: Any) -> None:
    PRINTERS[noun](PeopleConsole(), escape_control_characters(result), **options)


def _command_text(played: PlayedLine) -> str:
    line = played.line
    if line.show is not None:
        return str(escape_control_characters("show " + " ".join(str(word) for word in line.show)))
    arguments = line.arguments or {}
    named = [
        f"{name}={arguments[name]}"
        for name in ("order_id", "removal_id", "draft_id", "seller_id", "member_id", "buyer_id", "staff", "status")
        if isinstance(arguments.get(name), str | int)
    ]
    text: str = escape_control_characters(" ".join([line.task or "", *named]))
    return text


def _describe_answer(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "done":
        effects = ", ".join(f"{name}: {_shorten_value(value)}" for name, value in answer["effects"].items())
        return f"done. {effects}" if effects else "done."
    if answer["outcome"] == "invalid":
        return f"invalid. {_describe_errors(answer)}"
    return f"{answer['outcome']} ({answer['code']}). {answer['message']}"


def _describe_errors(answer: dict[str, Any]) -> str:
    return "; ".join(f"{error['path']} {error['message']}" for error in answer["errors"])


def _shorten_value(value: Any) -> str:
    text = _plain_value(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _plain_value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_plain_value(item)}" for name, item in value.items() if item is not None) + ")"
    if isinstance(value, list):
        return ", ".join(_plain_value(item) for item in value) or "none"
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


_STYLES = {"done": "green", "refused": "yellow", "invalid": "red", "conflict": "red"}


def _print_order(console: PeopleConsole, result: dict[str, Any]) -> None:
    console.write(Text(f"Order {result['order_id']} is {result['status']}.", style="bold"))
    console.write(result["verdict"])
    names = {result[role]["member_id"]: _member_name_text(result[role]) for role in ("buyer", "seller")}
    buyer, seller = names[result["buyer_id"]], names[result["seller_id"]]
    payment = "unpaid" if result["payment_status"] == "None" else f"payment {result['payment_status']}"
    console.write(
        f"{buyer} bought from {seller} for {result['total']} {result['currency']} "
        f"(order date {result['order_date']}, {payment})."
    )
    less = [f"{result[kind]} {kind}" for kind in ("credit", "coupon") if float(result[kind])]
    if less:
        console.write(f"The buyer pays less by {' and '.join(less)}; the fee is of the goods before that.")
    if result["cancelled_at"]:
        by = names.get(result["cancelled_by"], result["cancelled_by"])
        console.write(f"Cancelled on {result['cancelled_at']} by {by}, on the ground {result['basis']}.")
    for line in result["lines"]:
        console.write(f"  {_order_line_text(line)}")
    if ocr := result["ocr"]:
        console.write(f"Cancel request of the {ocr['filed_by']}: {ocr['state']}, filed {ocr['filed_at']}.")
    if alert := result["alert"]:
        console.write(f"Alert {alert['kind']}: {alert['state']}, filed {alert['filed_at']}; {_describe_unlock(alert)}.")
    if late := result["late_payment"]:
        state = f"settled {late['settled_at']} by {late['settled_by']}" if late["settled_at"] else "not settled"
        console.write(f"Payment after the cancellation: {late['payment_status']}, {late['recorded_at']}; {state}.")
    for removal in result["removals"]:
        console.write(f"Removal request {removal['removal_id']} of the {removal['requested_by']}: {removal['state']}.")
    console.write(_describe_fee(result["fee"]))
    for credit in result["credits"]:
        console.write(f"  {credit['where']}")
    console.write("What happened:")
    for row in result["timeline"]:
        by = row["actor"] if row["role"] == "system" else f"{names.get(row['actor'], row['actor'])}, {row['role']}"
        change = f"  [{row['from'] or 'new'} → {row['to']}]" if row["from"] != row["to"] else ""
        console.write(Text.assemble("  ", (row["at"], "dim"), f"  {by}: {row['note']}{change}"))
    console.write("Inventory movements:" if result["stock"] else "No inventory movements.")
    _print_stock_moves(console, result["stock"])
    console.write("Emails:" if result["notices"] else "No emails.")
    _print_emails(console, result["notices"])


def _print_stock_moves(console: PeopleConsole, moves: list[dict[str, Any]]) -> None:
    for (at, kind), group in groupby(moves, key=lambda move: (move["at"], move["kind"])):
        units = ", ".join(f"{move['delta']:+} in lot {move['lot_id']} (line {move['line_no']})" for move in group)
        console.write(Text.assemble("  ", (at, "dim"), f"  {kind}: {units}"))


def _order_line_text(line: dict[str, Any]) -> str:
    item = f"{line['quantity']} × {_item_text(line)}"
    text = f"Line {line['line_no']}: {item} of lot {line['lot_id']} at {line['unit_price']}"
    if line["removed"]:
        text += f", {line['removed']} removed"
    if line["returned"]:
        text += f", {line['returned']} returned to lot {line['returned_to_lot']}"
    return text + (f" ({line['note']})" if line["note"] else "")


def _item_text(lot: dict[str, Any]) -> str:
    colour = f" in colour {lot['color_id']}" if lot["color_id"] else ""
    return f"{lot['item']['type'].lower()} {lot['item']['no']}{colour}"


def _describe_unlock(alert: dict[str, Any]) -> str:
    answered = f"answered {alert['responded_at']}; " if alert["responded_at"] else ""
    return f"{answered}cancellation possible from {describe_possible_from(alert['unlocks_at'])}"


def _describe_fee(fee: dict[str, Any]) -> str:
    text = f"Fee: {fee['charged']} USD charged for {fee['charged_month'] or 'no month'}"
    if fee["reset"]:
        text += f", reset by {fee['reset']} in the same month"
    if fee["credit"]:
        text += f", credited {fee['credit']} on the bill of {fee['credit_month']}"
    return f"{text}; {fee['net']} USD remains."


def _member_name_text(member: dict[str, Any]) -> str:
    return f"{member['handle']} ({member['member_id']})" if member["handle"] else str(member["member_id"])


def _print_explain(console: PeopleConsole, result: dict[str, Any], *, show_all: bool = False) -> None:
    console.write(Text(f"Order {result['order_id']} is {result['status']} (at {result['at']}).", style="bold"))
    console.write(result["verdict"])
    hidden = 0
    for role in ("seller", "buyer"):
        console.write(Text(f"The {role}", style="bold"))
        refused: dict[str, list[str]] = {}
        for option in result[role]:
            if option["possible"]:
                console.write(Text(f"  can {_describe_action(option)}. {option['why']}", style="green"))
            elif option["code"] not in ("WRONG_ROLE", "NO_LATE_PAYMENT"):  # these explain nothing about the order
                why = option["why"].replace(ASK_AGAIN, ".")  # nothing was asked yet
                refused.setdefault(f"{why}{_describe_unblock(option)}", []).append(_describe_action(option))
        if not any(option["possible"] for option in result[role]):
            console.write("  can do nothing now.")
        hidden += sum(len(actions) for actions in refused.values())
        for reason, actions in refused.items() if show_all else ():
            console.write(
                f"  cannot {' or '.join(actions) if len(actions) <= MAX_ACTIONS else 'do anything else'}: {reason}"
            )
    if hidden and not show_all:
        console.write(f"With --all: why {hidden} other {'action is' if hidden == 1 else 'actions are'} not possible.")


MAX_ACTIONS = 3
"""Actions that are listed before one reason; more are summed up."""


def _describe_action(option: dict[str, Any]) -> str:
    removal = f" {option['removal_id']}" if option.get("removal_id") else ""
    return f"{ACTIONS[option['action']].label}{removal} ({option['action']})"


def _describe_unblock(option: dict[str, Any]) -> str:
    if option["possible_from"]:
        return f" Possible from {describe_possible_from(option['possible_from'])}."
    return f" What would change it: {option['unblocked_by']}." if option["unblocked_by"] else ""


def _print_bill(console: PeopleConsole, result: dict[str, Any]) -> None:
    heading, _, rest = render_text(result).partition("\n")
    console.write(Text(heading, "bold"))
    console.write(rest.rstrip())


def _print_lots(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    table = Table("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
    for lot in result:
        where = f"stockroom {lot['stock_room_id'] or ''}" if lot["is_stock_room"] else "for sale"
        table.add_row(
            *(str(value) for value in (lot["lot_id"], lot["item"]["no"], lot["color_id"], lot["new_or_used"])),
            *(str(value) for value in (lot["quantity"], lot["unit_price"], where)),
        )
    console.print(table) if result else console.write("No lots.")


def _print_member(console: PeopleConsole, result: dict[str, Any]) -> None:
    privileges = [word for word, allowed in (("buy", result["can_buy"]), ("sell", result["can_sell"])) if allowed]
    console.write(Text(f"{_member_name_text(result)} is {result['state']}.", style="bold"))
    console.write(f"Privileges: {' and '.join(privileges) or 'none'}.")
    console.write(f"Strikes that count: {', '.join(str(strike) for strike in result['strikes']) or 'none'}.")
    excluded = result["automation"].pop("exclude_buyers")
    for name, setting in result["automation"].items():
        console.write(f"Automation: {name} = {setting['value']}, set on {setting['set_at']}.")
    if excluded:
        console.write(f"Never touched by automation: orders of {', '.join(excluded)}.")
    for change in result["automation_history"]:
        console.write(Text(f"  {change['at']}  {change['by']}: {change['note']}", style="dim"))


def _print_notices(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    _print_emails(console, result)
    if not result:
        console.write("No emails.")


def _print_emails(console: PeopleConsole, notices: list[dict[str, Any]]) -> None:
    for notice in notices:
        heading = f"  to {notice['recipient']}: {notice['subject']}"
        console.write(Text.assemble("  ", (notice["sent_at"] or notice["state"], "dim"), heading))
        console.write(Text(indent(notice["text"], "      "), style="dim"))


def _print_alerts(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for alert in result:
        due = describe_possible_from(alert["unlocks_at"])
        console.write(f"  {due}  order {alert['order_id']}: {alert['kind']}, order {alert['status']}")
    if not result:
        console.write("No alert is due by then.")


def _print_request(console: PeopleConsole, result: dict[str, Any]) -> None:
    if result["state"] == "waiting":
        when = f" since {result['submitted_at']}" if result["submitted_at"] else ""
        console.write(
            Text(f"Request {result['request_id']}: {result['task']}, waiting{when} for a worker.", style="bold")
        )
        return
    if result["state"] == "dead":
        console.write(
            Text(f"Request {result['request_id']}: {result['task']}, given up {result['answered_at']}.", style="bold")
        )
        console.write(f"None of it was done. {COMMAND} jobs dead shows why; {COMMAND} jobs replay ID tries again.")
        return
    console.write(
        Text(f"Request {result['request_id']}: {result['task']}, answered {result['answered_at']}.", style="bold")
    )
    console.write(_describe_answer(result["answer"]))


def _print_credits(console: PeopleConsole, result: dict[str, Any]) -> None:
    for credit in result["credits"]:
        order = f"Order {credit['order_id']}" if credit["order_id"] is not None else "By staff"
        if credit["basis"] is not None:
            order += f", cancelled {credit['cancelled_at']} on the ground {credit['basis']}"
            order += f" (fee {credit['charged']} USD, charged for {credit['charged_month'] or 'no month'})"
        console.write(f"  {order}: {credit['where']}")
    if not result["credits"]:
        console.write(f"No order of {result['seller_id']} was cancelled, and no credit was given.")


def _print_sweeps(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for sweep, group in groupby(result, key=lambda row: row["sweep"]):
        hours = list(group)
        latest = hours[0]
        console.write(
            Text(f"{sweep}: last ran {latest['last_ran_at']}, found {latest['found_ever']} in total.", style="bold")
        )
        for row in hours:
            if row["hour"] is not None:
                runs = "1 run" if row["runs"] == 1 else f"{row['runs']} runs"
                gap = (
                    f"; longest gap {describe_duration(row['longest_gap_seconds'])}"
                    if row["longest_gap_seconds"]
                    else ""
                )
                console.write(Text.assemble("  ", (row["hour"], "dim"), f"  found {row['found']} in {runs}{gap}"))
    if not result:
        console.write("No sweep has run yet.")


def _print_late_payments(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for late in result:
        console.write(
            f"  {late['recorded_at']}  order {late['order_id']}: {late['payment_status']}, "
            f"{_member_name_text(late['buyer'])} paid {_member_name_text(late['seller'])}"
        )
    if not result:
        console.write("No payment for a cancelled order is open.")


def describe_possible_from(timestamp: str) -> str:
    return describe_timestamp(parse_timestamp(timestamp))


PRINTERS: dict[str, Callable[..., None]] = {
    "order": _print_order,
    "explain": _print_explain,
    "bill": _print_bill,
    "lots": _print_lots,
    "member": _print_member,
    "notices": _print_notices,
    "alerts": _print_alerts,
    "request": _print_request,
    "credits": _print_credits,
    "forecast": print_forecast,
    "sweeps": _print_sweeps,
    "late-payments": _print_late_payments,
}
