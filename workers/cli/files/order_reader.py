"""Reader of orders: BrickLink's order download (XML) and the API's answers (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from policies.statuses import PROBLEM, PaymentStatus, Status
from policies.timestamps import parse_timestamp
from workers.cli.files.item_fields import InvalidItem, ItemFields
from workers.cli.files.lot_elements import parse_amount_field
from workers.cli.files.lot_reader import record_of_json
from workers.cli.files.records import read_records
from workers.cli.files.xml_records import Record, UnreadableFile, XmlRepairs

MAX_ORDERS = 20_000
ORDER_DOWNLOAD_ZONE = ZoneInfo("America/New_York")  # downloads have dates of BrickLink's days, without a time
LEFT_OUT_ORDER_STATUSES = ("CANCELLED", "PURGED")
DATE_FORMATS = {"mdy": "%m/%d/%Y", "dmy": "%d/%m/%Y", "ymd": "%Y-%m-%d"}


@dataclass(frozen=True, slots=True)
class FileOrder:
    order_id: int
    buyer: str
    buyer_email: str
    at: datetime
    changed_at: datetime
    status: str
    payment_status: str
    currency: str
    credit: Decimal
    coupon: Decimal
    items: tuple[Mapping[str, Any], ...]
    """The fields of each; `lot_id` is 0 where the file names no lot."""


@dataclass(slots=True)
class OrderFile:
    """A file of orders. `now`: when it was written. `problems`: the orders that cannot be imported, with the reason."""

    file: BinaryIO
    now: datetime
    dates: str = "mdy"
    orders: list[FileOrder] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    repairs: XmlRepairs = field(default_factory=XmlRepairs)

    def read(self) -> None:
        seen: dict[int, str] = {}
        for record in read_records(self.file, self.repairs, _order_record):
            if record.root not in ("ORDERS", "ORDER"):
                raise UnreadableFile("This is an inventory, not an order download: `import-lots` reads it.")
            if len(seen) >= MAX_ORDERS:
                raise UnreadableFile(f"The file has more than {MAX_ORDERS:,} orders; import it in parts.")
            number = record.values.get("ORDERID", "").strip()[:20]
            place = f"order {number}" if number else f"order number {record.number} of the file"
            place += f" (line {record.line})" if record.line else ""
            try:
                order = self._order(record)
                if order.order_id in seen:
                    raise InvalidItem(f"the order is also {seen[order.order_id]}")
            except InvalidItem as problem:
                self.problems.append(f"{place}: {problem}")
                continue
            seen[order.order_id] = place
            if order.status in LEFT_OUT_ORDER_STATUSES:
                self.left_out += 1
            elif order.status in PROBLEM:
                self.problems.append(
                    f"{place}: the order is {order.status}, and the file does not say who filed what, and when; finish "
                    "it at BrickLink"
                )
            else:
                self.orders.append(order)

    def _order(self, record: Record) -> FileOrder:
        values = {name: text.strip() for name, text in record.values.items()}
        number = values.get("ORDERID", "")
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise InvalidItem("ORDERID is missing or not a whole number")
        if "BUYER" not in values and "SELLER" in values:
            raise InvalidItem("the order was placed, not received: import the seller's download")
        if not values.get("BUYER"):
            raise InvalidItem("BUYER is missing")
        status = values.get("ORDERSTATUS", "").upper()
        if status not in (*Status, "PURGED"):
            raise InvalidItem(f"ORDERSTATUS {status[:20] or 'is missing and'} is none of BrickLink's")
        at = self._order_instant(values, "ORDERDATE")
        changed_at = (
            max(at, self._order_instant(values, "ORDERSTATUSCHANGED")) if values.get("ORDERSTATUSCHANGED") else at
        )
        items = tuple(self._order_item(item) for item in record.items)
        if status not in LEFT_OUT_ORDER_STATUSES:
            _check_order_totals(values, items)
        given = values.get("PAYMENTSTATUS", "")
        payment_status = next((str(known) for known in PaymentStatus if known.upper() == given.upper()), "")
        if given and not payment_status:
            raise InvalidItem(f"payment status {given[:20]} is none of BrickLink's")
        if not given:  # a download has none, and these statuses say that the order was paid
            payment_status = "Received" if status in ("PAID", "SHIPPED", "RECEIVED", "COMPLETED") else "None"
        return FileOrder(
            order_id=int(number),
            buyer=values["BUYER"],
            buyer_email=values.get("BUYEREMAIL", ""),
            at=at,
            changed_at=changed_at,
            status=status,
            payment_status=payment_status,
            currency=values.get("BASECURRENCYCODE") or "USD",
            credit=_parse_order_total(values, "ORDERCREDIT") or Decimal(0),
            coupon=_parse_order_total(values, "ORDERCREDITCOUPON") or Decimal(0),
            items=items,
        )

    def _order_item(self, record: Record) -> Mapping[str, Any]:
        try:
            given = ItemFields(record, is_bsx=False)
            fields = given.all()
            given.check_required(fields)
            lot_id = given.integer("lot_id") or 0
            if not fields["quantity"] > 0 or not fields.get("unit_price"):
                raise InvalidItem("QTY and PRICE must be above zero")
        except InvalidItem as problem:
            raise InvalidItem(f"item {record.number}: {problem}") from None
        return fields | {"lot_id": lot_id}

    def _order_instant(self, values: Mapping[str, str], name: str) -> datetime:
        text = values.get(name, "")
        try:
            if "T" in text:
                return parse_timestamp(text)
            day = datetime.strptime(text.partition(" ")[0], DATE_FORMATS[self.dates]).date()  # noqa: DTZ007 - a date
        except ValueError:
            raise InvalidItem(
                f"{name} must be a date of the format {self.dates} ({DATE_FORMATS[self.dates]}); see --dates"
            ) from None
        end = datetime.combine(day, time.max, ORDER_DOWNLOAD_ZONE).astimezone(UTC).replace(microsecond=0)
        return min(end, self.now)


def _check_order_totals(values: Mapping[str, str], items: Sequence[Mapping[str, Any]]) -> None:
    if not items:
        raise InvalidItem("the order has no items: download it with its details, or add the API's items as `items`")
    goods = sum((item["quantity"] * item["unit_price"] for item in items), Decimal(0))
    stated = _parse_order_total(values, "ORDERTOTAL")
    if stated is not None:
        places = values["ORDERTOTAL"].partition(".")[2]
        rounded = goods.quantize(Decimal(1).scaleb(-min(len(places), 4)), rounding=ROUND_HALF_UP)
        if rounded != stated:
            raise InvalidItem(f"ORDERTOTAL is {values['ORDERTOTAL']}, and the items come to {goods.normalize():f}")
    counts = {"ORDERITEMS": sum(item["quantity"] for item in items), "ORDERLOTS": len(items)}
    for name, count in counts.items():
        text = values.get(name, "").replace(",", "")
        if text.isdigit() and int(text) != count:
            raise InvalidItem(f"{name} is {text}, and the file has {count}")


def _parse_order_total(values: Mapping[str, str], name: str) -> Decimal | None:
    text = values.get(name, "")
    if not text:
        return None
    amount = parse_amount_field(text)
    if amount is None or amount < 0:
        raise InvalidItem(f"{name} must be an amount such as 12.50")
    return amount


def _order_record(number: int, order: Mapping[str, Any]) -> Record:
    if "inventory_id" in order:
        raise UnreadableFile("These are lots, not orders: `import-lots` reads them.")
    record = Record(number, None, "ORDER")
    cost, payment = (value if isinstance(value := order.get(name), dict) else {} for name in ("cost", "payment"))
    for name, value in {
        "ORDERID": order.get("order_id"),
        "ORDERDATE": order.get("date_ordered"),
        "ORDERSTATUSCHANGED": order.get("date_status_changed"),
        "BUYER": order.get("buyer_name"),
        "BUYEREMAIL": order.get("buyer_email"),
        "ORDERSTATUS": order.get("status"),
        "PAYMENTSTATUS": payment.get("status"),
        "BASECURRENCYCODE": cost.get("currency_code"),
        "ORDERTOTAL": cost.get("subtotal"),
        "ORDERCREDIT": cost.get("credit"),
        "ORDERCREDITCOUPON": cost.get("coupon"),
        "ORDERITEMS": order.get("total_count"),
        "ORDERLOTS": order.get("unique_count"),
    }.items():
        if value is not None:
            record.add(name, str(value))
    items = order.get("items")
    items = items.get("data") if isinstance(items, dict) else items
    for batch in items if isinstance(items, list) else ():
        for item in batch if isinstance(batch, list) else (batch,):
            if not isinstance(item, dict):
                raise UnreadableFile("The items of an order are objects, or lists of objects by batch.")
            price = item.get("unit_price_final", item.get("unit_price"))
            wanted = ("inventory_id", "item", "color_id", "new_or_used", "completeness", "description", "remarks")
            values = {name: item[name] for name in wanted if name in item}
            record.items.append(
                record_of_json(
                    len(record.items) + 1, values | {"quantity": item.get("quantity"), "unit_price": price}, ""
                )
            )
    return record
