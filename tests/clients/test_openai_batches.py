"""Files and batches with the official `openai` and `groq` clients, over a real gateway, control and worker (echo)."""

import http.client
import io
import json
import time
from typing import Any

import openai
import pytest
from groq import Groq
from openai import OpenAI

PATIENCE = 120.0


def jsonl(*bodies: dict[str, Any], url: str = "/v1/chat/completions") -> bytes:
    lines = [
        {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": {"model": "echo", **body}}
        for number, body in enumerate(bodies, start=1)
    ]
    return "\n".join(json.dumps(line) for line in lines).encode()


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def upload(client: OpenAI, data: bytes) -> str:
    return client.files.create(file=("requests.jsonl", data), purpose="batch").id


def create(client: OpenAI, data: bytes, endpoint: Any = "/v1/chat/completions", **more: Any) -> Any:
    return client.batches.create(input_file_id=upload(client, data), endpoint=endpoint, completion_window="24h", **more)


def until(client: OpenAI, batch_id: str, *statuses: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while (batch := client.batches.retrieve(batch_id)).status not in statuses:
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


def results(client: OpenAI, file_id: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


@pytest.fixture
def client(echo_server: Any) -> Any:
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_files(client: OpenAI) -> None:
    data = b"\x00\xff\r\n--boundary" * 100_000
    file = client.files.create(
        file=("ü data.bin", io.BytesIO(data)),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.bytes, file.filename, file.purpose) == (len(data), "ü data.bin", "user_data")
    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    content = client.files.content(file.id)
    assert content.read() == data
    assert content.response.headers["content-disposition"].startswith("attachment")
    assert file.id in [each.id for each in client.files.list(purpose="user_data")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.content(file.id)
    assert caught.value.code == "file_not_found"
    assert caught.value.request_id


def test_pages_of_files_follow_each_other(client: OpenAI) -> None:
    made = [client.files.create(file=b"x", purpose="evals").id for _ in range(5)]
    assert [file.id for file in client.files.list(purpose="evals", limit=2, order="asc")][-5:] == made
    for file_id in made:
        client.files.delete(file_id)


def test_a_batch(client: OpenAI) -> None:
    batch = create(
        client,
        jsonl(*[chat(f"number {number}") for number in range(20)], chat("x", temperature=99)),
        metadata={"job": "nightly"},
    )
    assert (batch.status, batch.object, batch.metadata) == ("validating", "batch", {"job": "nightly"})
    batch = until(client, batch.id, "completed")
    assert batch.request_counts.to_dict() == {"total": 21, "completed": 20, "failed": 1}
    found = results(client, batch.output_file_id)
    for number in range(20):
        response = found[f"request-{number + 1}"]["response"]
        answer = openai.types.chat.ChatCompletion.model_validate(response["body"])
        assert (response["status_code"], answer.choices[0].message.content) == (200, f"number {number}")
        assert answer.id.endswith(response["request_id"])
    [error] = results(client, batch.error_file_id).values()
    assert (error["response"]["status_code"], error["response"]["body"]["error"]["param"]) == (400, "temperature")
    used = [line["response"]["body"]["usage"] for line in found.values()]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in used)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in used)
    assert batch.id in [each.id for each in client.batches.list(limit=1)]


def test_two_thousand_lines(client: OpenAI) -> None:
    batch = until(client, create(client, jsonl(*[chat(f"number {n}") for n in range(2000)])).id, "completed")
    assert batch.request_counts.to_dict() == {"total": 2000, "completed": 2000, "failed": 0}
    found = results(client, batch.output_file_id)
    said = {name: line["response"]["body"]["choices"][0]["message"]["content"] for name, line in found.items()}
    assert said == {f"request-{n + 1}": f"number {n}" for n in range(2000)}


def test_its_usage_is_billed_to_the_key_that_made_it(client: OpenAI, echo_server: Any) -> None:
    batch = until(client, create(client, jsonl(chat("a b c"), chat("d e"))).id, "completed")
    ids = {line["response"]["request_id"] for line in results(client, batch.output_file_id).values()}
    deadline = time.monotonic() + PATIENCE
    while True:
        _, page = echo_server.call("GET", "/admin/v1/usage?limit=1000", key=echo_server.admin_key)
        rows = [row for row in page["data"] if row["request_id"] in ids]
        if [row["outcome"] for row in rows] == ["completed"] * 2:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)
    assert sum(row["usage"]["output"] for row in rows) == batch.usage.output_tokens == 5
    assert len({row["key_id"] for row in rows}) == 1


def test_the_other_endpoints(client: OpenAI) -> None:
    texts = until(
        client, create(client, jsonl({"prompt": "a b"}, url="/v1/completions"), "/v1/completions").id, "completed"
    )
    [line] = results(client, texts.output_file_id).values()
    assert line["response"]["body"]["choices"][0]["text"].strip() == "a b"
    answers = jsonl({"input": "c d"}, {"input": "x", "background": True}, url="/v1/responses")
    answered = until(client, create(client, answers, "/v1/responses").id, "completed")
    [line] = results(client, answered.output_file_id).values()
    stored = client.responses.retrieve(line["response"]["body"]["id"])
    assert stored.output_text == "c d"
    [error] = results(client, answered.error_file_id).values()
    assert error["response"]["body"]["error"]["param"] == "background"
    vectors = until(
        client, create(client, jsonl({"input": "x"}, url="/v1/embeddings"), "/v1/embeddings").id, "completed"
    )
    [line] = results(client, vectors.output_file_id).values()
    assert line["response"]["body"]["data"][0]["embedding"]
    assert vectors.usage.input_tokens == line["response"]["body"]["usage"]["prompt_tokens"] > 0


def test_what_is_wrong_is_told_by_line(client: OpenAI) -> None:
    data = jsonl(chat("a"), {"model": "no-such-model", "messages": []}) + b"\nnot json\n"
    batch = until(client, create(client, data).id, "failed")
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "model_not_found"),
        (3, "invalid_json_line"),
    ]
    for wrong in ({"endpoint": "/v1/nothing"}, {"input_file_id": "file-x"}):
        options: Any = {"input_file_id": batch.input_file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.create(**{**options, **wrong})
        assert caught.value.param == next(iter(wrong))


def test_cancel(patient_server: Any) -> None:
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=patient_server.api_key, max_retries=0) as client:
        data = jsonl(*[chat(" ".join(["word"] * 20), model="slow")] * 60)
        batch = until(client, create(client, data).id, "in_progress")
        deadline = time.monotonic() + PATIENCE
        while client.batches.retrieve(batch.id).request_counts.completed == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
        done = until(client, batch.id, "cancelled")
        output, errors = results(client, done.output_file_id), results(client, done.error_file_id)
        assert 0 < len(output) < 60
        assert output.keys() | errors.keys() == {f"request-{number}" for number in range(1, 61)}
        assert not output.keys() & errors.keys()
        assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}


def test_another_project_sees_nothing(patient_server: Any, strangers_key: str) -> None:
    base_url = f"{patient_server.url}/v1"
    with (
        OpenAI(base_url=base_url, api_key=patient_server.api_key, max_retries=0) as client,
        OpenAI(base_url=base_url, api_key=strangers_key, max_retries=0) as stranger,
    ):
        file, batch = upload(client, b"{}"), create(client, jsonl(chat("mine"))).id
        for attempt in (
            lambda: stranger.files.retrieve(file),
            lambda: stranger.files.content(file),
            lambda: stranger.files.delete(file),
            lambda: stranger.batches.retrieve(batch),
            lambda: stranger.batches.cancel(batch),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
        assert not list(stranger.files.list())
        assert not list(stranger.batches.list())
        with pytest.raises(openai.BadRequestError):
            stranger.batches.create(input_file_id=file, endpoint="/v1/completions", completion_window="24h")


def test_keys_are_checked_before_anything_is_taken(echo_server: Any) -> None:
    with (
        OpenAI(base_url=f"{echo_server.url}/v1", api_key="sk-tw-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.files.create(file=b"x" * 10_000, purpose="user_data")


def test_too_large_is_refused_by_name(echo_server: Any) -> None:
    answers = [
        echo_server.call("POST", "/v1/batches", {"surprise": 1}),
        echo_server.call("PUT", "/v1/files"),
        echo_server.call("GET", "/v1/filesystem"),
    ]
    host, port = echo_server.url.removeprefix("http://").split(":")
    for path, size in (("/v1/batches", 2_000_000), ("/v1/files", 600 * 1024**2)):
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.putrequest("POST", path)
        connection.putheader("authorization", f"Bearer {echo_server.api_key}")
        connection.putheader("content-length", str(size))
        connection.endheaders()
        answer = connection.getresponse()
        answers.append((answer.status, json.loads(answer.read())))
        connection.close()
    assert [status for status, _ in answers] == [400, 405, 404, 413, 413]
    assert all(body["error"]["type"] == "invalid_request_error" for _, body in answers)


def test_the_client_of_groq_under_its_own_prefix(echo_server: Any) -> None:
    with Groq(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", jsonl(chat("hello"))), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        deadline = time.monotonic() + PATIENCE
        while (batch := client.batches.retrieve(batch.id)).status != "completed":
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)
        text = client.files.content(batch.output_file_id or "").read()
        assert json.loads(text)["response"]["body"]["choices"][0]["message"]["content"] == "hello"
        assert file.id in [each.id for each in client.files.list().data]
        assert batch.id in [each.id for each in client.batches.list().data]
