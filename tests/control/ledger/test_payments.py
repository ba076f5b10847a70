"""Top-ups, refunds and usage reports through Stripe's interface: exact bytes, and once each."""

import time

import pytest

pytestmark = pytest.mark.both_databases
WISH = {"amount_usd": "25", "success_url": "https://me.example/ok", "cancel_url": "https://me.example/no"}

METER = "/v1/billing/meter_events"


@pytest.fixture(scope="module")
def process(control_process, stripe_server, database_options):
    """Control that takes payments."""
    secrets = f"whsec_old {stripe_server.webhook_secret}"
    environment = {"STRIPE_API_KEY": stripe_server.api_key, "STRIPE_WEBHOOK_SECRET": secrets}
    options = ("--stripe-url", stripe_server.url, "--stripe-meter", "m", *database_options)
    with control_process(*options, environment=environment) as process:
        yield process


@pytest.fixture
def paying(process, stripe):
    return Paying(process, stripe)


class Paying:
    """A new organization that pays."""

    def __init__(self, control, stripe):
        self.control, self.stripe = control, stripe
        self.organization = control.admin("POST", "/admin/v1/organizations", {"name": "payer"}).json["id"]

    def post(self, path, body, key=None, status=200):
        headers = {} if key is None else {"idempotency-key": key}
        path = f"/admin/v1/billing/{path}?organization_id={self.organization}"
        answer = self.control.call("POST", path, body, self.control.bootstrap["admin_key"], headers)
        assert answer.status == status, answer.raw
        return answer.json if status == 200 else answer.error

    def tell(self, body, signature=None, status=200):
        """An event, whose id is made this organization's own unless it was signed already."""
        if signature is None:
            body = body.replace(b'"evt_', f'"evt_{self.organization}_'.encode())
        headers = {"stripe-signature": signature or self.stripe.signature(body), "content-type": "application/json"}
        answer = self.control.call("POST", "/webhooks/payments", body, None, headers)
        assert answer.status == status, answer.raw
        return answer.json

    def get(self, path):
        path = f"/admin/v1/billing/{path}?organization_id={self.organization}"
        return self.control.admin("GET", path).json

    def balance(self):
        found = self.get("balance")
        return found["balance"]["usd"], found["held"]["usd"], found["accounts"]["cash"]["usd"]

    def payments(self):
        return self.get("payments")["data"]

    def kinds(self):
        return [each["kind"] for each in reversed(self.get("transactions")["data"])]

    def topped_up(self):
        """A payment of 25 USD that was made."""
        made = self.post("checkouts", WISH)
        self.tell(self.stripe.paid(self.session(), event=f"evt_{made['id']}"))
        return made["id"]

    def session(self):
        return list(self.stripe.answers.values())[-1]


def test_a_checkout_is_asked_for_in_stripes_own_words(paying, stripe):
    made = paying.post("checkouts", WISH, "key 1")
    assert made["url"] == paying.session()["url"]
    assert (made["status"], made["amount"]["usd"]) == ("open", "25")
    [(path, form, headers)] = stripe.requests
    assert path == "/v1/checkout/sessions"
    assert form == {
        "mode": "payment",
        "success_url": "https://me.example/ok",
        "cancel_url": "https://me.example/no",
        "client_reference_id": paying.organization,
        "customer_creation": "always",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "2500",
        "line_items[0][price_data][product_data][name]": "Prepaid credit",
        "metadata[organization_id]": paying.organization,
        "metadata[payment_id]": made["id"],
        "payment_intent_data[metadata][organization_id]": paying.organization,
        "payment_intent_data[metadata][payment_id]": made["id"],
    }
    assert headers["authorization"] == f"Bearer {stripe.api_key}"
    assert headers["stripe-version"] == "2025-04-30.basil"
    assert headers["idempotency-key"] == made["id"]
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert paying.balance() == ("0", "0", "0"), "nothing is paid yet"
    assert paying.post("checkouts", WISH, "key 1") == made, "asked again, the same"
    assert len(stripe.requests) == 1
    refused = paying.post("checkouts", {**WISH, "amount_usd": "26"}, "key 1", status=400)
    assert refused["param"] == "Idempotency-Key"


def test_a_payment_tops_up_once_however_often_it_is_told(paying, stripe):
    payment = paying.post("checkouts", WISH)
    told = stripe.paid(paying.session())
    assert [paying.tell(told)["taken"] for _ in range(3)] == [True, False, False]
    again = stripe.paid(paying.session(), "checkout.session.async_payment_succeeded", "evt_2")
    assert paying.tell(again)["taken"], "a new event of the same payment"
    assert paying.kinds() == ["topup"]
    assert paying.balance() == ("25", "0", "25")
    [found] = paying.payments()
    assert (found["id"], found["status"]) == (payment["id"], "paid")
    assert paying.get("profile")["customer"] == "cus_1"
    paying.post("checkouts", WISH)
    assert stripe.requests[-1][1]["customer"] == "cus_1"


def test_a_payment_that_comes_later_or_never(paying, stripe):
    paying.post("checkouts", WISH)
    session = paying.session()
    paying.tell(stripe.paid(session, event="evt_1", payment_status="unpaid"))
    assert paying.kinds() == []
    paying.tell(stripe.paid(session, "checkout.session.async_payment_succeeded", "evt_2"))
    paying.tell(stripe.paid(session, "checkout.session.expired", "evt_3"))
    assert (paying.kinds(), paying.payments()[0]["status"]) == (["topup"], "paid")
    paying.post("checkouts", WISH)
    paying.tell(stripe.paid(paying.session(), "checkout.session.expired", "evt_4"))
    assert sorted(each["status"] for each in paying.payments()) == ["expired", "paid"]


def test_an_event_that_overtakes_our_own_answer(paying, stripe):
    """The session was made, control died before it noted it, and the customer paid."""
    stripe.planned = [(200, {"no": "id"})]
    error = paying.post("checkouts", WISH, "k", status=503)
    assert error["code"] == "payment_unavailable"
    paying.tell(stripe.paid(paying.session()))
    assert paying.balance() == ("25", "0", "25")
    made = paying.post("checkouts", WISH, "k")
    assert made["url"] == paying.session()["url"]
    assert [each["status"] for each in paying.payments()] == ["paid"]


@pytest.mark.parametrize("how", ["no header", "another secret", "another body", "an hour ago", "two times", "garbage"])
def test_an_event_that_is_not_stripes_changes_nothing(paying, stripe, how):
    paying.post("checkouts", WISH)
    body = stripe.paid(paying.session())
    signatures = {
        "no header": "x=1",
        "another secret": stripe.signature(body, "whsec_guessed"),
        "another body": stripe.signature(body.replace(b"2500", b"9500")),
        "an hour ago": stripe.signature(body, at=int(time.time()) - 3600),
        "two times": stripe.signature(body) + ",t=1",
        "garbage": "t=٣,v1=é".encode().decode("latin-1"),
    }
    paying.tell(body, signatures[how], status=400)
    assert paying.kinds() == []


def test_a_secret_may_be_rolled(paying, stripe):
    paying.post("checkouts", WISH)
    body = stripe.paid(paying.session(), event="evt_rolled")
    paying.tell(body, stripe.signature(body, "whsec_old"))
    assert paying.kinds() == ["topup"]


def test_events_of_others_are_taken_and_change_nothing(paying, stripe):
    foreign = {
        "id": "cs_9",
        "object": "checkout.session",
        "amount_total": 5,
        "currency": "usd",
        "payment_status": "paid",
    }
    assert not paying.tell(stripe.event("checkout.session.completed", foreign))["taken"]
    metadata = {"organization_id": "org_none", "payment_id": "pay_none"}
    assert not paying.tell(stripe.event("checkout.session.completed", {**foreign, "metadata": metadata}))["taken"]
    assert not paying.tell(stripe.event("customer.created", {"id": "cus_2"}))["taken"]
    assert paying.kinds() == []


def test_money_goes_back_and_only_what_is_not_spent(paying, stripe):
    payment = paying.topped_up()
    session = paying.session()["id"]
    paying.post("adjustments", {"amount_usd": "-5", "memo": "spent"})
    for amount in ("20.01", "25"):
        assert paying.post(f"payments/{payment}/refund", {"amount_usd": amount}, status=400)["param"] == "amount_usd"
    for _ in range(2):
        made = paying.post(f"payments/{payment}/refund", {"amount_usd": "15"}, "once")
        assert made["balance"]["usd"] == "5"
    [(form, headers)] = [each[1:] for each in stripe.requests if each[0] == "/v1/refunds"]
    reference = str(made["sequence"])
    assert form == {
        "payment_intent": f"pi_{session}",
        "amount": "1500",
        "metadata[organization_id]": paying.organization,
        "metadata[reference]": reference,
    }
    assert headers["idempotency-key"] == f"refund-{paying.organization}-{reference}"
    assert paying.kinds() == ["topup", "adjustment", "hold", "payout"]
    assert paying.balance() == ("5", "0", "10")
    assert paying.payments()[0]["refunded"]["usd"] == "15"


def test_a_refund_that_takes_its_time_is_held(paying, stripe):
    stripe.refund_status = "pending"
    payment = paying.topped_up()
    paying.post(f"payments/{payment}/refund", {})
    assert paying.balance() == ("0", "25", "25")
    refund = {**paying.session(), "status": "succeeded"}
    for event in ("evt_r1", "evt_r1", "evt_r2"):
        paying.tell(stripe.event("refund.updated", refund, event))
    assert paying.balance() == ("0", "0", "0")
    paying.tell(stripe.event("refund.failed", {**refund, "status": "failed"}, "evt_r3"))
    assert paying.balance() == ("25", "0", "25"), "the bank sent it back"
    assert paying.payments()[0]["refunded"]["usd"] == "0"


def test_a_refund_that_is_refused_or_fails_is_released(paying, stripe):
    payment = paying.topped_up()
    stripe.planned = [(400, stripe.error)]
    error = paying.post(f"payments/{payment}/refund", {}, status=400)
    assert error["code"] == "payment_refused"
    assert "Invalid integer: x" in error["message"]
    stripe.refund_status = "failed"
    stripe.answers.clear()
    paying.post(f"payments/{payment}/refund", {})
    assert paying.balance() == ("25", "0", "25")
    assert paying.kinds() == ["topup", "hold", "release", "hold", "release"]


def test_lost_answers_and_busy_servers_are_asked_again_with_the_same_key(paying, stripe):
    stripe.planned = [None, (500, {"error": {"type": "api_error", "message": "oops"}})]
    paying.post("checkouts", WISH)
    keys = {headers["idempotency-key"] for _, _, headers in stripe.requests}
    assert (len(stripe.requests), len(keys), len(stripe.answers)) == (3, 1, 1)
    stripe.planned = [(429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}})] * 3
    assert paying.post("checkouts", WISH, status=503)["code"] == "payment_unavailable"


def test_usage_is_reported_in_cents_and_the_rest_later(paying, stripe):
    paying.topped_up()
    for cost, reported in (("0.019", [1]), ("0.002", [1, 1]), ("0.001", [1, 1])):
        use(paying, cost)
        paying.post("usage-reports", {})
        sent = [(form, headers) for path, form, headers in stripe.requests if path == METER]
        assert [int(form["payload[value]"]) for form, _ in sent] == reported
    form, headers = sent[0]
    assert (form["event_name"], form["payload[stripe_customer_id]"]) == ("m", "cus_1")
    assert form["identifier"] == f"{paying.organization}-0"
    assert headers["idempotency-key"] == f"meter-{paying.organization}-0"
    use(paying, "1")
    stripe.planned = [None] * 3
    paying.post("usage-reports", {}, status=503)
    paying.post("usage-reports", {})
    sent = [form for path, form, _ in stripe.requests if path == METER]
    assert {form["identifier"] for form in sent[2:]} == {f"{paying.organization}-20000000"}, "sent again as it was"


def test_what_was_used_before_it_is_to_be_reported_is_not(paying, stripe):
    """Paid in advance, or invoiced: only what follows is reported."""
    use(paying, "3")
    paying.topped_up()
    paying.post("terms", {"mode": "prepaid"})
    use(paying, "5")
    paying.post("usage-reports", {})
    paying.post("terms", {"mode": "postpaid"})
    paying.post("usage-reports", {})
    assert [path for path, _, _ in stripe.requests if path == METER] == []
    use(paying, "0.07")
    paying.post("usage-reports", {})
    assert [form["payload[value]"] for path, form, _ in stripe.requests if path == METER] == ["7"]


def use(paying, usd):
    """A charge of so many dollars."""
    paying.number = getattr(paying, "number", 0) + 1
    paying.control.charge(f"req_{paying.organization}_{paying.number}", paying.organization, round(float(usd) * 10**9))


def test_without_a_provider_it_says_what_to_set(running):
    answer = running.admin("POST", "/admin/v1/billing/checkouts", WISH)
    assert (answer.status, answer.error["code"]) == (404, "no_payments")
    assert "STRIPE_API_KEY" in answer.error["message"]
    assert running.call("POST", "/webhooks/payments", b"{}").status == 404


@pytest.mark.parametrize(
    "change, param",
    [
        ({"amount_usd": "0.999"}, "amount_usd"),
        ({"amount_usd": "1.001"}, "amount_usd"),
        ({"success_url": "javascript:x"}, "success_url"),
        ({"cancel_url": None}, "cancel_url"),
    ],
)
def test_wishes_that_cannot_be(paying, change, param):
    assert paying.post("checkouts", {**WISH, **change}, status=400)["param"] == param
