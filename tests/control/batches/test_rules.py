"""What is said about a line that cannot be run."""

import json
from typing import Any

import pytest

from tokenworks.control.batches.rules import BATCH, MESSAGE_BATCH, MOST_ERRORS, MOST_LINES, Checker, request_id
from tokenworks.control.batches.splitting import Line
from tokenworks.core import request_ids

URL = "/v1/chat/completions"


def line(number: int = 1, text: bytes | None = None, **changes: Any) -> Line:
    if text is None:
        whole = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "m", "messages": []}}
        whole |= changes
        text = json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()
    return Line(number, 0, len(text), text)


def check(*lines: Line, models: set[str] | None = None) -> Checker:
    checker = Checker(BATCH, URL, {"m"} if models is None else models)
    for each in lines:
        checker.check(each)
    checker.finish()
    return checker


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"text": b"{"}, "invalid_json_line", None),
        ({"text": b"\xff"}, "invalid_json_line", None),
        ({"text": b'"text"'}, "invalid_request", None),
        ({"custom_id": ...}, "invalid_request", "custom_id"),
        ({"custom_id": 1}, "invalid_request", "custom_id"),
        ({"custom_id": ""}, "invalid_custom_id", "custom_id"),
        ({"custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
        ({"method": "GET"}, "invalid_method", "method"),
        ({"url": "/v1/embeddings"}, "invalid_url", "url"),
        ({"body": {}}, "invalid_request", "body.model"),
        ({"body": []}, "invalid_request", "body"),
        ({"body": {"model": 3}}, "invalid_request", "body.model"),
        ({"body": {"model": "none"}}, "model_not_found", "body.model"),
        ({"body": {"model": "m", "stream": True}}, "invalid_request", "body.stream"),
    ],
)
def test_each_mistake_is_named_with_its_line(wrong: dict[str, Any], code: str, param: str | None) -> None:
    checker = check(line(7, **wrong))
    [error] = checker.errors
    assert (error["code"], error["param"], error["line"]) == (code, param, 7)
    assert error["message"].endswith(".")


def test_a_good_batch() -> None:
    checker = check(line(1, custom_id="a"), line(2, custom_id="b", extra=1, body={"model": "m", "stream": False}))
    assert not checker.errors
    assert (checker.count, checker.seen_models) == (2, {"m"})


def test_an_id_counts_once() -> None:
    [error] = check(line(1), line(2)).errors
    assert (error["code"], error["line"]) == ("duplicate_custom_id", 2)


def test_an_empty_input() -> None:
    [error] = check().errors
    assert error["code"] == "empty_file"


def test_too_many_errors_are_counted() -> None:
    checker = check(*[line(number, text=b"{") for number in range(1, MOST_ERRORS + 51)])
    assert len(checker.errors) == MOST_ERRORS + 1
    assert "50 more" in checker.errors[-1]["message"]


def test_too_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_LINES, BATCH, 2)
    checker = check(*[line(number, custom_id=str(number)) for number in (1, 2, 3)])
    assert [error["code"] for error in checker.errors] == ["too_many_requests"]


def test_models_of_messages_are_found_out_later() -> None:
    checker = Checker(MESSAGE_BATCH, URL, None)
    assert checker.check(line(body={"model": "anything"})) == "a"


def test_request_ids() -> None:
    made = 1_790_000_000 * 10**9
    assert request_id("batch_1", made, 2) == request_id("batch_1", made, 2) != request_id("batch_12", made, 2)
    assert len(request_id("b", made, 1)) == len(request_ids.new())
    assert request_ids.first(1_790_000_000 - 1) < request_id("b", made, 1) < request_ids.first(1_790_000_000 + 1)
