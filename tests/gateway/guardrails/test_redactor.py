"""The redactor through a running gateway, with the official clients of each protocol."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from anthropic import Anthropic, BadRequestError
from tests.gateway.conftest import KEY, wait_for
from tests.gateway.guardrails.conftest import CARD, MAIL, Guarded, pii, saying, words

from tokenworks.core.events import Event, Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from tokenworks.snapshot.records import AliasRecord, PolicyRecord

PROMPT = f"Write to {MAIL} and pay with {CARD}; {MAIL} answers."
SECRET = f"It is {MAIL}, and the card is {CARD}. Call +44 20 7946 0958!"
HIDDEN = "It is [EMAIL_1], and the card is [CREDIT_CARD_1]. Call [PHONE_1]!"
SURFACES = [
    ("chat", "assistant"),
    ("chat", "claude"),
    ("messages", "assistant"),
    ("messages", "claude"),
    ("responses", "assistant"),
    ("responses", "answers"),
    ("completions", "texts"),
]
"""(what the caller speaks, the model): through another protocol, and to an upstream that speaks the same."""


@pytest.fixture(scope="module")
def openais(shared: Guarded) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=shared.gateway.url + "/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropics(shared: Guarded) -> Iterator[Anthropic]:
    with Anthropic(base_url=shared.gateway.url, api_key=KEY, max_retries=0) as client:
        yield client


class Asking:
    """(pieces of text as they came, why it ended)"""

    def __init__(self, openais: openai.OpenAI, anthropics: Anthropic) -> None:
        self.openais, self.anthropics = openais, anthropics

    def __call__(self, surface: str, model: str, text: str, *, stream: bool) -> tuple[list[str], str | None]:
        pieces, reason = getattr(self, surface)(model, text, stream)
        return [piece for piece in pieces if piece], reason

    def chat(self, model: str, text: str, stream: bool) -> tuple[list[str], str | None]:
        messages: Any = [{"role": "user", "content": text}]
        if not stream:
            whole = self.openais.chat.completions.create(model=model, messages=messages).choices[0]
            return [whole.message.content or ""], whole.finish_reason
        chunks = [
            c.choices[0]
            for c in self.openais.chat.completions.create(model=model, messages=messages, stream=True)
            if c.choices
        ]
        return [c.delta.content or "" for c in chunks], chunks[-1].finish_reason

    def messages(self, model: str, text: str, stream: bool) -> tuple[list[str], str | None]:
        asked: Any = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
        if not stream:
            whole = self.anthropics.messages.create(**asked)
            return [block.text for block in whole.content if block.type == "text"], whole.stop_reason
        with self.anthropics.messages.stream(**asked) as events:
            return list(events.text_stream), events.get_final_message().stop_reason

    def responses(self, model: str, text: str, stream: bool) -> tuple[list[str], str | None]:
        asked: Any = {"model": model, "input": text, "store": False}
        if not stream:
            whole = self.openais.responses.create(**asked)
            return [whole.output_text], whole.incomplete_details.reason if whole.incomplete_details else whole.status
        events = list(self.openais.responses.create(**asked, stream=True))
        last = events[-1].response  # type: ignore[union-attr]
        assert last.output_text == "".join(e.delta for e in events if e.type == "response.output_text.delta")
        reason = last.incomplete_details.reason if last.incomplete_details else last.status
        return [e.delta for e in events if e.type == "response.output_text.delta"], reason

    def completions(self, model: str, text: str, stream: bool) -> tuple[list[str], str | None]:
        if not stream:
            whole = self.openais.completions.create(model=model, prompt=text).choices[0]
            return [whole.text], whole.finish_reason
        chunks = [
            c.choices[0] for c in self.openais.completions.create(model=model, prompt=text, stream=True) if c.choices
        ]
        return [c.text for c in chunks], chunks[-1].finish_reason


@pytest.fixture
def asking(openais: openai.OpenAI, anthropics: Anthropic) -> Asking:
    return Asking(openais, anthropics)


@pytest.mark.parametrize(("surface", "model"), SURFACES)
def test_secrets_stay_here_and_come_back(guarded: Guarded, asking: Asking, surface: str, model: str) -> None:
    guarded.use(pii(phase="before", restore=True))
    guarded.say("Dear [EMAIL_1], [CREDIT_CARD_1] [EMAIL_2] [EMAIL_1")
    expected = f"Dear {MAIL}, {CARD} [EMAIL_2] [EMAIL_1"
    for stream in (False, True):
        pieces, _ = asking(surface, model, PROMPT, stream=stream)
        assert "".join(pieces) == expected
        assert "Write to [EMAIL_1] and pay with [CREDIT_CARD_1]; [EMAIL_1] answers." in guarded.sent
        assert MAIL not in guarded.sent
    guarded.use(pii(phase="before"))
    assert asking(surface, model, PROMPT, stream=True)[0][0].startswith("Dear [EMAIL_1]"[:3])


def test_each_restores_what_it_took_itself(guarded: Guarded) -> None:
    cards = pii(name="cards", entities=("credit_card",), phase="before")
    guarded.use(cards, pii(phase="before", restore=True))
    guarded.say("[CREDIT_CARD_1] of [EMAIL_1]")
    answer = guarded.ask(messages=[{"role": "user", "content": PROMPT}])
    assert answer.json()["choices"][0]["message"]["content"] == f"[CREDIT_CARD_1] of {MAIL}"


@pytest.mark.parametrize(("surface", "model"), SURFACES)
def test_what_the_model_says_is_the_same_streamed_and_whole(
    guarded: Guarded, asking: Asking, surface: str, model: str
) -> None:
    guarded.use(pii(phase="after"))
    guarded.say(SECRET)
    streamed, finish = asking(surface, model, "Hi", stream=True)
    whole, same = asking(surface, model, "Hi", stream=False)
    assert "".join(streamed) == "".join(whole) == HIDDEN
    assert finish == same
    assert len(streamed) > 8  # and it streams
    assert streamed[0] in ("It ", "It")


@pytest.mark.parametrize(("surface", "model"), SURFACES)
def test_a_blocked_answer_ends_before_it_in_the_protocols_own_words(
    guarded: Guarded, asking: Asking, surface: str, model: str
) -> None:
    guarded.use(pii(phase="after", action="block"))
    guarded.say(SECRET)
    for stream in (True, False):
        pieces, reason = asking(surface, model, "Hi", stream=stream)
        assert "".join(pieces) == "It is "
        assert reason == {"messages": "refusal"}.get(surface, "content_filter")


@pytest.mark.parametrize(("surface", "model"), SURFACES)
def test_a_refused_request_names_the_guardrail_and_never_what_it_found(
    guarded: Guarded, asking: Asking, surface: str, model: str
) -> None:
    guarded.use(pii(action="block"))
    with pytest.raises((openai.BadRequestError, BadRequestError)) as caught:
        asking(surface, model, PROMPT, stream=True)
    said = str(caught.value)
    assert "guardrail 'pii'" in said
    assert "CREDIT_CARD, EMAIL" in said
    assert MAIL not in said
    assert not guarded.gateway.upstream.seen


def test_the_journal_and_the_metrics_tell_what_fired_and_no_text(guarded: Guarded) -> None:
    guarded.use(pii())
    guarded.say(f"No, {MAIL} and bob@example.org.")
    answer = guarded.ask(messages=[{"role": "user", "content": PROMPT}])
    assert answer.json()["choices"][0]["message"]["content"] == "No, [EMAIL_1] and [EMAIL_2]."
    settled = guarded.settled(answer)
    assert settled.guardrails == "pii:redact:CREDIT_CARD=1,pii:redact:EMAIL=4"
    assert (settled.usage.input, settled.usage.output) == (12, 3)
    metrics = guarded.metrics()
    assert 'tokenworks_guardrails_total{action="redact",entity="EMAIL",guardrail="pii",phase="after"}' in metrics
    assert answer.headers["x-tokenworks-guardrails"] == "pii;CREDIT_CARD=1;EMAIL=2"
    assert MAIL not in guarded.gateway.log() + metrics

    guarded.use(pii(action="block"))
    refused = guarded.ask(messages=[{"role": "user", "content": PROMPT}])
    assert refused.json()["error"]["code"] == "content_policy_violation"
    settled = guarded.settled(refused)
    assert (settled.outcome, settled.status, settled.charge) == ("failed", 400, 0)
    assert settled.guardrails == "pii:block:CREDIT_CARD=1,pii:block:EMAIL=2"

    guarded.use(pii(action="log"))
    answer = guarded.ask(messages=[{"role": "user", "content": PROMPT}])
    assert MAIL in guarded.sent
    assert guarded.settled(answer).guardrails == "pii:log:CREDIT_CARD=1,pii:log:EMAIL=4"


def test_every_other_byte_of_the_body_stays(guarded: Guarded) -> None:
    guarded.use(pii(phase="before"))
    guarded.say("ok")
    image = "data:image/png;base64," + "4111111111111111" * 8
    body = {
        "messages": [
            {"role": "system", "content": "é  \u2028 alice@example.com"},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "x"}],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_4111111111111111",
                        "type": "function",
                        "function": {
                            "name": "send",
                            "arguments": '{"to":"\\u0061lice@example.com","n":4111111111111111}',
                        },
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_4111111111111111", "content": "sent to bob@example.org"},
        ],
        "future_member": {"text": "reach me at 415-555-2671", "weight": 1.50},
        "user": "carol@example.net",
        "seed": 4111111111111111,
    }
    guarded.ask(**body)
    sent = guarded.gateway.upstream.seen[-1].body
    expected = json.loads(json.dumps(body))
    expected["messages"][0]["content"] = "é  \u2028 [EMAIL_1]"
    expected["messages"][2]["tool_calls"][0]["function"]["arguments"] = '{"to":"[EMAIL_1]","n":"[CREDIT_CARD_1]"}'
    expected["messages"][3]["content"] = "sent to [EMAIL_2]"
    expected["future_member"]["text"] = "reach me at [PHONE_1]"
    expected["user"] = "[EMAIL_3]"
    assert sent == {**expected, "model": "model-1"}


def test_vectors_and_rankings_have_texts_too(guarded: Guarded) -> None:
    guarded.use(pii(action="block"))
    embedded = guarded.ask("/v1/embeddings", input=["fine", f"from {MAIL}"])
    ranked = guarded.ask("/v1/rerank", query="who?", documents=["fine", {"text": f"from {MAIL}"}])
    counted = guarded.ask("/v1/messages/count_tokens", messages=[{"role": "user", "content": MAIL}])
    for refused in (embedded, ranked, counted):
        assert (refused.status_code, "guardrail 'pii'" in refused.text) == (400, True), refused.text


def test_what_looks_like_data_and_is_a_key_and_what_cannot_be_read(guarded: Guarded) -> None:
    guarded.use(pii(phase="before"))
    guarded.say("ok")
    key = "sk-proj-" + "aB3_" * 45
    guarded.ask(messages=[{"role": "user", "content": key}])
    assert guarded.gateway.upstream.seen[-1].body["messages"][0]["content"] == "[API_KEY_1]"
    guarded.gateway.upstream.seen.clear()
    for path, body in (("/v1/completions", {"model": "texts", "prompt": [1, 2]}), ("/v1/embeddings", {"input": [[1]]})):
        refused = guarded.ask(path, **body)
        assert (refused.status_code, "ids of tokens" in refused.text) == (400, True), refused.text
    assert not guarded.gateway.upstream.seen


def test_reasoning_and_arguments_of_calls(guarded: Guarded, openais: openai.OpenAI) -> None:
    """JSON stays JSON: what comes back for a placeholder is written as JSON wants it."""
    arguments = '{"q": "[QUOTED_1]", "cc": "\\u0062ob@example.org", "card": 4111111111111111}'
    thought = words(f"Think of {CARD}.")
    said: list[Event] = [ReasoningDelta(each.text) for each in thought if isinstance(each, TextDelta)]
    said += [ToolCallDelta(0, "", "c1", "send"), *[ToolCallDelta(0, char) for char in arguments]]
    guarded.use(pii(restore=True, patterns=(("quoted", r"(?s)<<.*?>>"),)))
    guarded.say(lambda _: said, finish=FinishReason.TOOL_CALLS)
    asked: Any = {
        "model": "assistant",
        "tools": [{"type": "function", "function": {"name": "send"}}],
        "messages": [{"role": "user", "content": '<<say "hi"\n>>'}],
    }
    whole = openais.chat.completions.create(**asked).choices[0].message
    deltas = [
        chunk.choices[0].delta for chunk in openais.chat.completions.create(**asked, stream=True) if chunk.choices
    ]
    calls = [call.function for each in deltas for call in each.tool_calls or [] if call.function]
    streamed = "".join(call.arguments or "" for call in calls)
    assert [call.function.arguments for call in whole.tool_calls or [] if call.type == "function"] == [streamed]
    expected = {"q": '<<say "hi"\n>>', "cc": "[EMAIL_1]", "card": "[CREDIT_CARD_2]"}
    assert json.loads(streamed) == expected
    thoughts = [each.to_dict().get("reasoning_content") or "" for each in deltas]
    assert "".join(map(str, thoughts)) == "Think of [CREDIT_CARD_1]."


def test_one_choice_is_blocked_and_the_other_goes_on(guarded: Guarded) -> None:
    said: list[Event] = [TextDelta("a ", 0), TextDelta("b ", 1), TextDelta(f"{MAIL} c", 0), TextDelta("end", 1)]
    guarded.use(pii(action="block", phase="after"))
    guarded.say(lambda _: [*said, Finished(FinishReason.STOP, 1)])
    answer = guarded.ask(n=2, stream=True)
    texts, why = ["", ""], [None, None]
    for line in answer.text.splitlines():
        for choice in json.loads(line[6:])["choices"] if line.startswith("data: {") else ():
            texts[choice["index"]] += choice["delta"].get("content") or ""
            why[choice["index"]] = choice["finish_reason"] or why[choice["index"]]
    assert texts == ["a ", "b end"]
    assert why == ["content_filter", "stop"]


def test_what_a_lost_upstream_said_is_gone_on_with_as_it_said_it(guarded: Guarded) -> None:
    """The second upstream is told the first half of the secret, and the caller gets neither half."""
    half = SECRET.index("@") + 4
    said = iter([SECRET[:half], SECRET[half:]])

    async def script(request: Any, seen: Any) -> Any:
        text = next(said)
        return await saying(lambda _: words(text), cut=SECRET.startswith(text))(request, seen)

    guarded.use(pii(), policy=PolicyRecord(retries=2, hedge=0, breaker=0))
    guarded.gateway.upstream.script = script
    asked = {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    answer = guarded.ask("/v1/messages", stream=True, **asked)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert "".join(each["delta"].get("text", "") for each in events if each["type"] == "content_block_delta") == HIDDEN
    assert events[-1]["type"] == "message_stop"
    assert SECRET[:half] in json.dumps(guarded.gateway.upstream.seen[-1].body["messages"][-1])


def test_a_stream_that_is_lost_goes_on_and_nothing_is_said_twice_or_half(guarded: Guarded) -> None:
    """The first upstream breaks off in the middle of a secret; another one begins anew."""
    turns = iter([True, False, True, False])

    async def script(request: Any, seen: Any) -> Any:
        text = SECRET if not (cut := next(turns)) else SECRET[: SECRET.index("@") + 4]
        return await saying(lambda _: words(text), cut=cut)(request, seen)

    guarded.use(pii(), policy=PolicyRecord(retries=2, hedge=0, breaker=0))
    guarded.gateway.upstream.script = script
    for path, text in (("/v1/chat/completions", HIDDEN), ("/v1/chat/completions", HIDDEN)):
        answer = guarded.ask(path, stream=True)
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == text
        assert answer.text.endswith("data: [DONE]\n\n")
        assert chunks[-1].get("error") is None


def test_a_cached_answer_is_given_to_nobody_whose_secret_it_is_not(guarded: Guarded) -> None:
    policy = PolicyRecord(retries=0, hedge=0, breaker=0, cache=60)

    def asked(who: str) -> tuple[str, str]:
        answer = guarded.ask(messages=[{"role": "user", "content": f"greet {who}"}])
        return answer.json()["choices"][0]["message"]["content"], answer.headers["x-tokenworks-cache"]

    guarded.say("Hello [EMAIL_1]!")
    guarded.use(pii(restore=True), policy=policy)
    assert asked(MAIL) == (f"Hello {MAIL}!", "miss")
    assert asked("bob@example.org") == ("Hello bob@example.org!", "miss")
    assert asked(MAIL) == (f"Hello {MAIL}!", "hit")
    guarded.use(pii(), policy=policy)
    assert asked(MAIL) == ("Hello [EMAIL_1]!", "miss")
    assert asked("bob@example.org") == ("Hello [EMAIL_1]!", "hit")
    guarded.use(policy=policy)
    assert asked("[EMAIL_1]") == ("Hello [EMAIL_1]!", "miss")


def test_copies_of_requests_are_looked_at_as_requests_are(guarded: Guarded) -> None:
    seen = guarded.gateway.upstream.seen
    alias = AliasRecord("chat", 1, 1, {"to": "assistant", "shadow": {"to": "org/with/slashes", "percent": 100}})
    guarded.say("ok")
    guarded.use(pii(phase="before"), aliases=[alias])
    assert guarded.ask(model="chat", messages=[{"role": "user", "content": PROMPT}]).status_code == 200
    wait_for(lambda: len(seen) == 2)
    assert [each.body["model"] for each in seen] == ["model-1", "model-2"]
    assert all(each.body["messages"][0]["content"].startswith("Write to [EMAIL_1] and pay") for each in seen)


def test_whom_it_applies_to_and_in_which_order(guarded: Guarded) -> None:
    key = guarded.gateway.control._state.keys
    key_id = next(each.id for each in key.values() if each.models is None and each.expires_at is None)
    only = {"everybody": False}
    guarded.use(
        pii(name="by-model", models=("org/with/slashes",), **only),
        pii(name="by-project", projects=("proj_1",), **only),
        pii(name="by-key", keys=(key_id,), phase="after", **only),
        pii(name="nobody", projects=("proj_2",), keys=("key_2",), models=("other",), **only),
    )
    explained = guarded.ask("/v1/route:explain", messages=[{"role": "user", "content": MAIL}]).json()
    assert [(each["name"], each["phase"]) for each in explained["models"][0]["guardrails"]] == [
        ("by-project", "both"),
        ("by-key", "after"),
    ]
    explained = guarded.ask("/v1/route:explain", model="org/with/slashes", messages=[{"role": "user", "content": "x"}])
    assert [each["name"] for each in explained.json()["models"][0]["guardrails"]] == [
        "by-model",
        "by-project",
        "by-key",
    ]


def test_one_that_this_gateway_does_not_know_lets_nothing_pass(guarded: Guarded) -> None:
    guarded.use(pii(kind="oracle"))
    refused = guarded.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "guardrail_unavailable")
    assert not guarded.gateway.upstream.seen


def test_without_one_the_bytes_pass_as_they_came(guarded: Guarded) -> None:
    guarded.use()
    guarded.say(SECRET)
    assert guarded.ask().json()["id"] == "up-1"
    assert SECRET in guarded.ask().text
