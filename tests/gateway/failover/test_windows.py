"""A prompt that is too long: what the upstreams tell of it, and that nobody is asked whose window is too small, too."""

from typing import Any

import msgspec
import pytest
from tests.gateway.failover.conftest import FORGETFUL

from tokenworks.gateway.failover.windows import TooLong, told

SAID = {
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.": (8192, 9000),
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, "
    "1000 in the completion). Please reduce the length of the messages or completion.": (4096, 5000),
    "prompt is too long: 210000 tokens > 200000 maximum": (200000, 210000),
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length": (
        200000,
        210000,
    ),
    "The input token count (2000000) exceeds the maximum number of tokens allowed (1048575).": (1048575, 2000000),
    "The prompt is too long: 140000, model maximum context length: 131072": (131072, 140000),
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).": (8192, 9000),
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length": (
        32768,
        40000,
    ),
    "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it": (4096, 5000),
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200 `max_new_tokens`": (
        4096,
        4200,
    ),
    "the request exceeds the available context size": (None, None),
    "Input is too long for requested model.": (None, None),
    "This model's maximum context length is 8,193 tokens.": (8193, None),
}


@pytest.mark.parametrize(("message", "numbers"), SAID.items())
def test_the_numbers_are_read_from_the_words_of_any_provider(message: str, numbers: tuple[int, int]) -> None:
    assert told(message) == TooLong(*numbers)


def test_only_a_larger_window_that_is_large_enough_fits() -> None:
    both = TooLong(8192, 9000)
    assert [both.fits(window) for window in (None, 4096, 8192, 8999, 9000, 200_000)] == [
        None, False, False, False, True, True
    ]  # fmt: skip
    assert [TooLong(8192).fits(window) for window in (None, 8192, 8193)] == [None, False, True]
    assert TooLong().fits(4096) is None
    assert TooLong(100, 300).after(TooLong(200, 250)) == TooLong(200, 300)


LARGER, SMALLER = "b/ok", "m/ok"


def test_a_larger_window_is_asked_a_smaller_one_never(place: Any, whole_text: str) -> None:
    told = place.ask(place.model("a/context-length", SMALLER, LARGER, windows=(8, 4, 9)))
    assert (told.text, told.complete, told.named("provider"), told.named("attempts")) == (
        whole_text, True, "provider-b", "2"
    )  # fmt: skip
    told = place.ask(place.model("a/context-length", SMALLER, LARGER, windows=(None, None, 9)))
    assert told.named("provider") == "provider-b", "the error says 8: who is known to be larger comes first"
    told = place.ask(place.model("a/context-length", "m/context-length", LARGER, windows=(8, 16, 17)))
    assert (told.named("provider"), told.named("attempts")) == ("provider-b", "3")


def test_where_none_fits_the_error_has_its_cause_and_the_numbers(place: Any) -> None:
    for windows in ((8, 8), (16, 4)):
        told = place.ask(place.model("a/context-length", LARGER, windows=windows))
        assert (told.status, told.error["code"], told.headers["x-tokenworks-attempts"]) == (
            400, "context_length_exceeded", "1"
        )  # fmt: skip
        assert "maximum context length is 8 tokens" in told.error["message"]
    assert told.error["message"].endswith("is 16 tokens.")


def test_who_is_large_enough_but_away_is_what_the_caller_is_told(place: Any) -> None:
    for fault, code in (("error-500", "upstream_broken"), ("unknown-model", "context_length_exceeded")):
        policy = msgspec.structs.replace(FORGETFUL, retries=0)
        told = place.ask(place.model("a/context-length", f"b/{fault}", policy=policy, windows=(8, 9)))
        assert told.error["code"] == code
