"""Providers that are addressed or told their key in a way of their own, over real sockets: what reaches them."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from tokenworks.core.errors import Fault, TokenworksError
from tokenworks.core.sigv4 import Credentials, Signer
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import CredentialRecord, UpstreamRecord
from tokenworks.snapshot.sealing import seal

CLUSTER = bytes(32)
AWS = "AKIDEXAMPLEEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
Seen = list[tuple[str, dict[str, str], bytes]]


def call(
    upstream: Callable[[str], UpstreamRecord],
    *,
    model: str = "m",
    stream: bool = False,
    answers: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
    times: int = 1,
) -> tuple[Seen, bytes]:
    """One chat request to an upstream at the address that it is given: what it saw, and the bytes of its answer."""
    seen: Seen = []

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen.append((request.raw_path, headers, await request.read()))
        return await answers(request) if answers else web.json_response({})

    async def run() -> bytes:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        record = upstream(f"http://127.0.0.1:{runner.addresses[0][1]}")
        upstreams = Upstreams(CLUSTER)
        chat = codec("openai_chat")
        body = {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        request = chat.decode_request(json.dumps(body).encode())
        try:
            for _ in range(times):
                prepared = prepare(chat, request, record, model, Observation(), ("id", 1))
                async with upstreams.call(record, prepared, RouteLimits()) as got:
                    said = await got.read()
            return said
        finally:
            await upstreams.close()
            await runner.cleanup()

    return seen, asyncio.run(run())


def record(base: str, protocol: str, auth: str, secret: str, **members: Any) -> UpstreamRecord:
    keys = (CredentialRecord("k", seal(CLUSTER, "up", secret)),)
    return UpstreamRecord("up", "up", (protocol,), base, keys, auth=auth, **members)


def test_bedrock_gets_what_amazon_would_sign() -> None:
    """The signature is computed again from what arrived."""
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    seen, _ = call(lambda base: record(base, "bedrock_converse", "aws", AWS, region="eu-central-1"), model=model)
    ((path, headers, body),) = seen
    assert path == "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    stamp = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    given = {"host": headers["host"], "content-type": headers["content-type"]}
    signer = Signer(Credentials(*AWS.split(":")), "eu-central-1", "bedrock")
    again = signer.sign("POST", path, {}, given, hashlib.sha256(body).hexdigest(), stamp)
    assert headers["authorization"] == again["authorization"]
    assert "/eu-central-1/bedrock/aws4_request" in headers["authorization"]
    assert "content-type;host;x-amz-date" in headers["authorization"]


def test_bedrocks_own_keys_and_session_tokens() -> None:
    seen, _ = call(lambda base: record(base, "bedrock_converse", "aws", "ABSKkey", region="r"), stream=True)
    ((path, headers, _),) = seen
    assert path == "/model/m/converse-stream"
    assert headers["authorization"] == "Bearer ABSKkey"
    seen, _ = call(lambda base: record(base, "bedrock_converse", "aws", AWS + ":session/token==", region="r"))
    assert seen[0][1]["x-amz-security-token"] == "session/token=="


def test_a_key_of_another_form_is_the_keys_fault() -> None:
    with pytest.raises(TokenworksError, match="ACCESS_KEY_ID:SECRET") as caught:
        call(lambda base: record(base, "bedrock_converse", "aws", "sk-123", region="r"))
    assert caught.value.fault is Fault.CREDENTIAL


def test_azure() -> None:
    seen, _ = call(lambda base: record(f"{base}/openai/v1", "openai_chat", "azure", "k3y"))
    assert (seen[0][0], seen[0][1]["api-key"]) == ("/openai/v1/chat/completions", "k3y")
    assert "authorization" not in seen[0][1]
    seen, _ = call(lambda base: record(f"{base}/openai/v1", "openai_chat", "azure", "eyJ0.e30.x"))
    assert seen[0][1]["authorization"] == "Bearer eyJ0.e30.x"


def test_azures_first_api_has_the_deployment_in_the_path() -> None:
    settings = {"api_version": "2024-12-01-preview"}
    seen, _ = call(
        lambda base: record(f"{base}/openai/deployments", "openai_chat", "azure_deployments", "k", settings=settings),
        model="gpt 4o",
    )
    assert seen[0][0] == "/openai/deployments/gpt%204o/chat/completions?api-version=2024-12-01-preview"


def test_a_header_of_ones_own() -> None:
    settings = {"header": "x-portkey-api-key", "x-portkey-provider": "@mine", "region": ""}
    seen, _ = call(lambda base: record(base, "openai_chat", "header", "k", settings=settings))
    assert (seen[0][1]["x-portkey-api-key"], seen[0][1]["x-portkey-provider"]) == ("k", "@mine")
    assert "region" not in seen[0][1]


@pytest.fixture(scope="module")
def account() -> tuple[str, rsa.RSAPublicKey]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = {"type": "service_account", "client_email": "me@p.iam", "private_key": pem, "private_key_id": "7"}
    return json.dumps(file | {"token_uri": "http://127.0.0.1:1/stolen"}), key.public_key()


def test_vertex_exchanges_a_service_accounts_key_once(account: tuple[str, rsa.RSAPublicKey]) -> None:
    secret, public = account

    async def answers(request: web.Request) -> web.Response:
        return web.json_response({"access_token": "ya29.t", "expires_in": 3600} if request.path == "/token" else {})

    seen, _ = call(
        lambda base: record(
            f"{base}/v1", "openai_chat", "google", secret, settings={"token_url": f"{base}/token"}, region="r"
        ),
        answers=answers,
        times=2,
    )
    assert [path for path, _, _ in seen] == ["/token", "/v1/chat/completions", "/v1/chat/completions"]
    assert {headers["authorization"] for path, headers, _ in seen if path != "/token"} == {"Bearer ya29.t"}
    form = dict(pair.split("=") for pair in seen[0][2].decode().split("&"))
    head, claims, signature = (part + "==" for part in form["assertion"].split("."))
    signed = form["assertion"].rpartition(".")[0].encode()
    public.verify(base64.urlsafe_b64decode(signature), signed, PKCS1v15(), SHA256())
    assert json.loads(base64.urlsafe_b64decode(head)) == {"alg": "RS256", "typ": "JWT", "kid": "7"}
    said = json.loads(base64.urlsafe_b64decode(claims))
    assert (said["iss"], said["exp"] - said["iat"]) == ("me@p.iam", 3600)


@pytest.mark.parametrize(
    ("secret", "answer", "said"),
    [("{}", {}, "no service account"), (None, {"error": "invalid_grant"}, "service account is refused")],
)
def test_vertex_says_what_is_wrong_with_a_key(
    account: tuple[str, rsa.RSAPublicKey], secret: str | None, answer: dict[str, str], said: str
) -> None:
    async def answers(request: web.Request) -> web.Response:
        return web.json_response(answer)

    with pytest.raises(TokenworksError, match=said) as caught:
        call(
            lambda base: record(
                base, "openai_chat", "google", secret or account[0] + " ", settings={"token_url": f"{base}/token"}
            ),
            answers=answers,
        )
    assert caught.value.fault is Fault.CREDENTIAL


def test_anthropics_models_on_vertex() -> None:
    base_path = "/v1/projects/p/locations/r/publishers/anthropic/models"
    seen, _ = call(
        lambda base: record(f"{base}{base_path}", "anthropic_messages", "google_messages", "ya29.t"),
        model="claude-x@20260101",
        stream=True,
    )
    path, headers, body = seen[0]
    assert path == f"{base_path}/claude-x@20260101:streamRawPredict"
    sent = json.loads(body)
    assert (sent["anthropic_version"], "model" in sent, sent["stream"]) == ("vertex-2023-10-16", False, True)
    assert headers["authorization"] == "Bearer ya29.t"


def test_a_prediction_is_followed_to_its_stream_without_our_key() -> None:
    """The address of the stream is another origin than the one that was asked."""
    elsewhere: list[dict[str, str]] = []

    async def run() -> bytes:
        async def stream(request: web.Request) -> web.Response:
            elsewhere.append({name.lower(): value for name, value in request.headers.items()})
            return web.Response(text="event: done\nid: 1:0\ndata: {}\n\n", content_type="text/event-stream")

        async def create(request: web.Request) -> web.Response:
            return web.json_response({"id": "p", "urls": {"stream": f"http://127.0.0.1:{port}/s"}}, status=201)

        runners = []
        for handler in (stream, create):
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handler)
            runners.append(web.AppRunner(app))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        port = runners[0].addresses[0][1]
        up = record(f"http://127.0.0.1:{runners[1].addresses[0][1]}", "replicate", "", "r8_key")
        upstreams, chat = Upstreams(CLUSTER), codec("openai_chat")
        body = b'{"model": "x", "messages": [{"role": "user", "content": "Hi"}], "stream": true}'
        prepared = prepare(chat, chat.decode_request(body), up, "meta/x", Observation(), ("id", 1))
        try:
            async with upstreams.call(up, prepared, RouteLimits()) as got:
                return await got.read()
        finally:
            await upstreams.close()
            for runner in runners:
                await runner.cleanup()

    assert b"done" in asyncio.run(run())
    assert elsewhere[0]["accept"] == "text/event-stream"
    assert "authorization" not in elsewhere[0]
