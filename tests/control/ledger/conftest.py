"""Stripe over a real socket: it answers with documented bytes, remembers idempotency keys, and signs events."""

import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

import pytest

API_KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
WEBHOOK_SECRET = "whsec_test_secret"

# https://docs.stripe.com/api, version 2025-04-30.basil, cut to what a client may need.
SESSION = {
    "id": "cs_test_a11YYufWQzNY63zpQ6QSNRQhkUpVph4WRmzW0zWJO2znZKdVujZ0N0S22u",
    "object": "checkout.session",
    "amount_subtotal": 2198,
    "amount_total": 2198,
    "client_reference_id": None,
    "created": 1679600215,
    "currency": "usd",
    "customer": None,
    "expires_at": 1679686615,
    "livemode": False,
    "metadata": {},
    "mode": "payment",
    "payment_intent": None,
    "payment_status": "unpaid",
    "status": "open",
    "success_url": "https://example.com/success",
    "url": "https://checkout.stripe.com/c/pay/cs_test_a11YYufWQzNY63zpQ6QSNRQhkUpVph4WRmzW0zWJO2znZKdVujZ0N0S22u",
}
REFUND = {
    "id": "re_1Nispe2eZvKYlo2Cd31jOCgZ",
    "object": "refund",
    "amount": 1000,
    "charge": "ch_1NirD82eZvKYlo2CIvbtLWuY",
    "created": 1692942318,
    "currency": "usd",
    "metadata": {},
    "payment_intent": "pi_1GszsK2eZvKYlo2CfhZyoZLp",
    "reason": None,
    "status": "succeeded",
}
METER_EVENT = {
    "object": "billing.meter_event",
    "created": 1704824589,
    "event_name": "ai_search_api",
    "identifier": "identifier_123",
    "livemode": True,
    "payload": {"value": "25", "stripe_customer_id": "cus_NciAYcXfLnqBoz"},
    "timestamp": 1680210639,
}
ERROR = {
    "error": {
        "code": "parameter_invalid_integer",
        "doc_url": "https://stripe.com/docs/error-codes/parameter-invalid-integer",
        "message": "Invalid integer: x",
        "param": "line_items[0][price_data][unit_amount]",
        "request_log_url": "https://dashboard.stripe.com/test/logs/req_1",
        "type": "invalid_request_error",
    }
}
INVALID_KEY = {
    "error": {"message": f"Invalid API Key provided: sk_test_{'*' * 20}{API_KEY[-4:]}", "type": "invalid_request_error"}
}


class Stripe(ThreadingHTTPServer):
    """`planned` answers are given first: (status, body), or None to hang up."""

    daemon_threads = True
    api_key, webhook_secret, error, invalid_key = API_KEY, WEBHOOK_SECRET, ERROR, INVALID_KEY

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.number = 0
        self.forget()

    def forget(self):
        self.requests = []
        self.planned = []
        self.answers = {}
        self.refund_status = "succeeded"

    def answer(self, path, form, key):
        """The same for the same idempotency key, whatever happened to the first answer."""
        made = self.answers.get(key)
        if made is None:
            self.number += 1
            metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
            if path == "/v1/checkout/sessions":
                cents = int(form["line_items[0][price_data][unit_amount]"])
                made = {**SESSION, "id": f"cs_test_{self.number}", "amount_total": cents, "metadata": metadata}
                made["url"] = f"https://checkout.stripe.com/c/pay/cs_test_{self.number}"
            elif path == "/v1/refunds":
                made = {**REFUND, "amount": int(form["amount"]), "metadata": metadata, "status": self.refund_status}
            else:
                made = {**METER_EVENT, "identifier": form["identifier"]}
            self.answers[key] = made
        return made

    def paid(self, session, name="checkout.session.completed", event="evt_1", **changes):
        """The event's bytes."""
        done = {"payment_status": "paid", "status": "complete", "payment_intent": f"pi_{session['id']}"}
        thing = {**session, **done, "customer": "cus_1", **changes}
        return self.event(name, thing, event)

    @staticmethod
    def event(name, thing, event="evt_1"):
        body = {"id": event, "object": "event", "api_version": "2025-04-30.basil", "created": int(time.time())}
        return json.dumps({**body, "type": name, "livemode": False, "data": {"object": thing}}, indent=2).encode()

    @staticmethod
    def signature(body, secret=WEBHOOK_SECRET, at=None):
        at = int(time.time()) if at is None else at
        signed = hmac.digest(secret.encode(), str(at).encode() + b"." + body, "sha256").hex()
        return f"t={at},v1={signed},v0={'0' * 64}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stripe

    def do_POST(self):
        form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode(), strict_parsing=True))
        self.server.requests.append((self.path, form, {name.lower(): value for name, value in self.headers.items()}))
        made = self.server.answer(self.path, form, self.headers["idempotency-key"])
        planned = self.server.planned.pop(0) if self.server.planned else (200, made)
        if planned is None:
            self.close_connection = True
            return
        status, body = planned
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.send_header("request-id", "req_abc")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="package")
def stripe_server():
    server = Stripe()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def stripe(stripe_server):
    """As if it had never been asked anything."""
    stripe_server.forget()
    return stripe_server


@pytest.fixture(scope="module")
def running(control_process, backend, request):
    """Control on each of the databases."""
    database = [] if backend == "sqlite" else ["--database", request.getfixturevalue("postgres").database()]
    with control_process(*database) as process:
        yield process
