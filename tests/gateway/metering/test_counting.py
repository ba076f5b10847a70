"""Our own count, and reports that cannot be true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.events import TextDelta, ToolCallDelta
from tokenworks.core.messages import Image, Message, Role, Text, Tool, ToolResult
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.core.usage import Usage
from tokenworks.gateway.metering.counting import NOTHING, SLACK, estimate, estimate_input, judge
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation


def chat(*parts: Any, **members: Any) -> Request:
    task = Conversation([Message(Role.USER, list(parts) or [Text("x" * 40)])], members.pop("tools", []))
    return Request("m", task, "openai_chat", body=b"x" * 100, **members)


def seen(*texts: str) -> Observation:
    observation = Observation()
    for text in texts:
        observation.see(TextDelta(text))
    return observation


@pytest.mark.parametrize(
    ("request_", "report", "doubt"),
    [
        (chat(), Usage(input=10, output=5), ""),
        (chat(), Usage(input=-10, output=5), "negative"),
        (chat(), Usage(input=10, output=5, reasoning=-1), "negative"),
        (chat(), Usage(input=2**50, output=5), "absurd"),
        (chat(max_output_tokens=20), Usage(input=10, output=20), ""),
        (chat(max_output_tokens=20), Usage(input=10, output=200), "more_than_the_maximum"),
        (chat(max_output_tokens=20, n=4), Usage(input=10, output=80), ""),
        (chat(max_output_tokens=20), Usage(input=10, output=200, reasoning=180), ""),
        (chat(), Usage(input=SLACK + 101), "more_than_the_prompt"),
        (chat(), Usage(input=50, cached_input=SLACK + 51), "more_than_the_prompt"),
        (chat(Image(url="https://x")), Usage(input=SLACK + 101), ""),
        (chat(ToolResult("c", [Image(url="https://x")])), Usage(input=SLACK + 101), ""),
        (chat(own=["previous_response_id"]), Usage(input=SLACK + 101), ""),
    ],
)
def test_a_report_that_cannot_be_true_is_not_billed(request_: Request, report: Usage, doubt: str) -> None:
    went_by = seen("four", "more")
    count = judge(report, went_by, request_, local=False)
    assert count.doubt == doubt
    own = estimate(request_, went_by, local=False)
    assert (count.usage, count.counted) == ((own, own) if doubt else (report, None))


def test_an_engine_of_ours_is_counted_by_its_pieces() -> None:
    request, pieces = chat(stream=True), seen(*["x"] * 200)
    for output, differs in ((200, False), (204, False), (196, False), (205, True), (195, True)):
        count = judge(Usage(input=9, output=output), pieces, request, local=True)
        assert count.usage == Usage(input=9, output=output)
        assert count.counted == (Usage(input=9, output=200) if differs else None)
    assert judge(Usage(input=9, output=300), pieces, request, local=False).counted is None
    assert judge(Usage(output=1002), seen(*["x"] * 1000), request, local=True).counted is None
    assert judge(Usage(output=1011), seen(*["x"] * 1000), request, local=True).counted is not None


def test_estimates() -> None:
    assert estimate_input(chat()) == 10 + 4
    assert estimate_input(chat(Text("é" * 40))) == 20 + 4  # bytes, not characters
    assert estimate_input(chat(Image(data="x" * 10**6))) == 1000 + 4  # not by the size of its file
    assert estimate_input(chat(tools=[Tool("f", "d" * 400)])) > 100
    texts = {"openai_completions": Prompts(["x" * 40, [1, 2, 3]]), "openai_embeddings": Embeddings(["x" * 40, [1]])}
    assert estimate_input(Request("m", texts["openai_completions"], "")) == 13
    assert estimate_input(Request("m", texts["openai_embeddings"], "")) == 11
    assert estimate_input(Request("m", Rerank("x" * 4, ["x" * 40]), "")) == 11


def test_output_is_counted_by_pieces_or_by_text_whichever_is_more() -> None:
    assert estimate(chat(), seen("x" * 400), local=False).output == 100  # a whole answer is not one token
    assert estimate(chat(), seen("a", "b", "c"), local=False).output == 3
    assert estimate(chat(), seen("x" * 50, "y" * 50), local=True).output == 2
    called = Observation()
    called.see(ToolCallDelta(0, '{"a":' + "1" * 95 + "}"))
    assert estimate(chat(), called, local=False).output == 26


def test_what_a_stream_says_at_its_beginning_is_its_input() -> None:
    observation = seen("x" * 40)
    observation.prompt = Usage(input=3, cached_input=5000)
    assert estimate(chat(), observation, local=False) == Usage(input=3, cached_input=5000, output=10)


def test_whole_answers_and_streams_that_pass_through_tell_their_size() -> None:
    request = Request("m", Conversation([]), "openai_chat")
    for name, body in (
        ("openai_chat", b'{"choices":[{"index":0,"message":{"content":"%s"},"finish_reason":"stop"}]}'),
        ("openai_completions", b'{"choices":[{"index":0,"text":"%s","finish_reason":"stop"}]}'),
    ):
        observation = Observation()
        codec(name).passthrough(request, observation).whole(body % (b"x" * 4000))
        assert estimate(chat(), observation, local=False).output == 1000


@given(
    st.builds(Usage, *[st.integers(-5, 10**6)] * 5), st.integers(0, 50), st.booleans(), st.none() | st.integers(1, 99)
)
def test_whatever_is_reported_what_is_billed_is_no_nonsense(
    report: Usage, pieces: int, local: bool, most: int | None
) -> None:
    count = judge(report, seen(*["x"] * pieces), chat(max_output_tokens=most, stream=True), local=local)
    assert min(count.usage.input, count.usage.cached_input, count.usage.cache_write, count.usage.output) >= 0
    assert bool(count.doubt) == (count.usage != report) or count.usage == report
    assert count.usage != NOTHING or report == NOTHING or count.doubt
