"""Stripe, over its documented HTTP interface.

Requests are form-encoded, pinned to one version of the interface, and carry an Idempotency-Key, so that one whose
answer was lost is sent again without harm (https://docs.stripe.com/api). Keys never reach a log line or a message.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tokenworks.control.ledger.payments.base import (
    BadSignature,
    Checkout,
    Event,
    EventKind,
    MeterEvent,
    PaymentRefused,
    PaymentUnavailable,
    Wish,
)

VERSION = "2025-04-30.basil"
URL = "https://api.stripe.com"
SIGNATURE_HEADER = "stripe-signature"
TOLERANCE_SECONDS = 300
TRIES = 3
PAUSE_SECONDS = 0.5
TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_AGAIN = {409, 424, 429, 500, 502, 503, 504}
_SESSION: dict[str, EventKind] = {
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "checkout.session.expired": "expired",
}
_REFUND_EVENTS = ("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")
_REFUND: dict[str, EventKind] = {
    "succeeded": "refund_succeeded",
    "failed": "refund_failed",
    "canceled": "refund_failed",
    "pending": "refund_pending",
    "requires_action": "refund_pending",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """`webhook_secrets`: more than one while a secret is being rolled. `meter`: the event name of the meter that usage
    is reported to; None: it is not."""

    api_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    url: str = URL
    meter: str | None = None


class Stripe:
    def __init__(self, settings: StripeSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self.meters = settings.meter is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        headers = {"authorization": f"Bearer {self._settings.api_key}", "stripe-version": VERSION}
        async with aiohttp.ClientSession(
            headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=TIMEOUT
        ) as self._session:
            yield

    async def checkout(self, wish: Wish) -> Checkout:
        metadata = {"organization_id": wish.organization_id, "payment_id": wish.payment_id}
        product = {"name": "Prepaid credit"}
        price = {"currency": "usd", "unit_amount": wish.cents, "product_data": product}
        wanted: dict[str, Any] = {
            "mode": "payment",
            "success_url": wish.success_url,
            "cancel_url": wish.cancel_url,
            "client_reference_id": wish.organization_id,
            "line_items": [{"quantity": 1, "price_data": price}],
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
        }
        wanted |= {"customer": wish.customer} if wish.customer else {"customer_creation": "always"}
        made = await self._post("/v1/checkout/sessions", wanted, wish.payment_id)
        return Checkout(_text(made, "id"), _text(made, "url"))

    async def refund(self, intent: str, cents: int, organization_id: str, reference: str) -> EventKind:
        metadata = {"organization_id": organization_id, "reference": reference}
        wanted = {"payment_intent": intent, "amount": cents, "metadata": metadata}
        made = await self._post("/v1/refunds", wanted, f"refund-{organization_id}-{reference}")
        return _REFUND.get(_text(made, "status"), "refund_pending")

    async def report(self, event: MeterEvent) -> None:
        payload = {"stripe_customer_id": event.customer, "value": event.cents}
        wanted = {
            "event_name": self._settings.meter,
            "identifier": event.id,
            "timestamp": event.at,
            "payload": payload,
        }
        await self._post("/v1/billing/meter_events", wanted, f"meter-{event.id}")

    def event(self, headers: Mapping[str, str], body: bytes, now: int) -> Event:
        check_signature(headers.get(SIGNATURE_HEADER, ""), body, self._settings.webhook_secrets, now)
        try:
            event = json.loads(body)
            return _event(event["id"], event["type"], event["data"]["object"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadSignature("The signed body is no event.") from error

    async def _post(self, path: str, wanted: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Sent up to TRIES times while nobody knows whether it was done."""
        for attempt in range(1, TRIES + 1):
            try:
                return await self._once(path, urlencode(list(_flat(wanted))), key)
            except PaymentUnavailable:
                if attempt == TRIES:
                    raise
                await asyncio.sleep(PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")

    async def _once(self, path: str, form: str, key: str) -> dict[str, Any]:
        if self._session is None:
            raise PaymentUnavailable("the process is starting or ending")
        headers = {"content-type": "application/x-www-form-urlencoded", "idempotency-key": key}
        try:
            async with self._session.post(
                self._settings.url + path, data=form, headers=headers, allow_redirects=False
            ) as response:
                status, request, raw = response.status, response.headers.get("request-id", ""), await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PaymentUnavailable(f"no answer ({type(error).__name__})") from error
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        message = _message(answer, status)
        log.warning("stripe answered %d to %s (request %s): %s", status, path, request, message)
        if status in _AGAIN or status == 200:
            raise PaymentUnavailable(message)
        raise PaymentRefused(message)


def check_signature(header: str, body: bytes, secrets: tuple[str, ...], now: int) -> None:
    """`t=UNIX_SECONDS,v1=HEX[,v1=HEX...]`: HMAC-SHA256 of `t.body` (https://docs.stripe.com/webhooks/signature)."""
    parts = [part.strip().partition("=")[::2] for part in header.split(",")]
    times = [value for name, value in parts if name == "t"]
    signatures = [value for name, value in parts if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or not signatures:
        raise BadSignature("The Stripe-Signature header is missing or malformed.")
    signed = times[0].encode() + b"." + body
    expected = [hmac.digest(secret.encode(), signed, "sha256").hex() for secret in secrets]
    found = [hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in signatures]
    if not any(found):
        raise BadSignature("No signature is that of this body under the webhook's secret.")
    if abs(now - int(times[0])) > TOLERANCE_SECONDS:
        raise BadSignature(f"The event was signed more than {TOLERANCE_SECONDS} s ago, or in the future.")


def _event(id: str, name: str, thing: dict[str, Any]) -> Event:
    metadata = thing.get("metadata") or {}
    organization_id = str(metadata.get("organization_id") or "")
    if name == "checkout.session.completed" or name in _SESSION:
        kind: EventKind = _SESSION.get(name) or ("paid" if thing["payment_status"] == "paid" else "waiting")
        reference = str(metadata.get("payment_id") or "")
        if not reference or thing.get("currency") != "usd":
            return Event(id, name, "")
        return Event(
            id, name, kind, organization_id, reference, thing["amount_total"], thing["id"],
            thing.get("payment_intent"), thing.get("customer"),
        )  # fmt: skip
    if name in _REFUND_EVENTS and metadata.get("reference"):
        kind = _REFUND.get(thing.get("status") or "", "")
        return Event(id, name, kind, organization_id, str(metadata["reference"]), thing["amount"], thing["id"])
    return Event(id, name, "")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Stripe's form encoding of nested values: `line_items[0][quantity]=1`."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}[{key}]" if name else key)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _flat(each, f"{name}[{number}]")
    else:
        yield name, str(value)


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise PaymentUnavailable(f"the answer has no {name}")
    return value


def _message(answer: Any, status: int) -> str:
    """Of an error object (https://docs.stripe.com/api/errors)."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return f"HTTP status {status}"
    known = [str(error[name]) for name in ("type", "code", "param") if error.get(name)]
    if status == 401:  # its message quotes the key
        return f"the API key is not valid ({', '.join(known)})"
    return f"{error.get('message') or 'no message'} ({', '.join(known)})"
