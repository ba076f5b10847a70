"""What control does with keys and secrets when it starts."""

import json

WISH = {"amount_usd": "25", "success_url": "https://me.example/ok", "cancel_url": "https://me.example/no"}


def test_no_secret_is_logged_or_told(control, stripe):
    environment = {"STRIPE_API_KEY": stripe.api_key, "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret}
    process = control("--stripe-url", stripe.url, "--log-level", "debug", environment=environment).start()
    stripe.planned = [(401, stripe.invalid_key)]
    answer = process.admin("POST", "/admin/v1/billing/checkouts", WISH)
    assert answer.error["code"] == "payment_refused"
    process.call("POST", "/webhooks/payments", b"{}", None, {"stripe-signature": "t=1,v1=00"})
    process._process.send_signal(15)
    said = process._process.stderr.read().decode() + json.dumps(answer.json)
    assert "API key is not valid" in said
    for secret in (stripe.api_key, stripe.api_key[-4:], stripe.webhook_secret):
        assert secret not in said


def test_a_key_without_its_webhook_secret_does_not_start(control):
    code, said = control(environment={"STRIPE_API_KEY": "sk_test_x"}).run()
    assert code == 2
    assert "STRIPE_WEBHOOK_SECRET" in said
    assert "sk_test_x" not in said


def test_the_key_stays_over_a_restart_and_needs_its_cluster_key(control):
    process = control().start()
    keys = process.call("GET", "/v1/receipts/keys").json
    assert [each["crv"] for each in keys["keys"]] == ["Ed25519"]
    process.stop()
    assert process.start().call("GET", "/v1/receipts/keys").json == keys
    process.stop()
    (process.data_dir / "cluster.key").write_text("ab" * 32 + "\n")
    code, said = process.run()
    assert code == 2
    assert "the key that signs receipts cannot be opened" in said
