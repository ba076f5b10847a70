"""kill -9 of control and of the gateway in the middle of a batch, and callers who wait beside one."""

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

LINES = 120
WORDS = 40
CONCURRENCY = 4
MODELS = """
[models.echo]
engine = "echo"
options = {rate = 400}

[models.held]
engine = "echo"
options = {rate = 20}
"""


def jsonl(count: int, model: str, words: int) -> bytes:
    def line(number: int) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": " ".join([f"w{number}"] * words)}]}
        return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}

    return "\n".join(json.dumps(line(number)) for number in range(1, count + 1)).encode()


@pytest.fixture(scope="module")
def server(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("batches")
    config: Path = folder / "models.toml"
    config.write_text(MODELS)
    settings = {"TOKENWORKS_GATEWAY_BATCH_CONCURRENCY": str(CONCURRENCY)}
    with serve(folder / "data", "--config", str(config), **settings) as server:
        yield server


@pytest.fixture
def client(server: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key, max_retries=0) as client:
        yield client


def pid_of(server: Any, plane: str, model: str = "echo") -> int:
    """A worker by its model; there is one of each other."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            ours = f"tokenworks.{plane}" in words and any(str(server.data_dir) in word for word in words)
            if ours and (plane != "worker" or model in words):
                return int(path.parent.name)
    raise AssertionError(f"no {plane}")


def start(client: OpenAI, data: bytes) -> Any:
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def completed(client: OpenAI, batch_id: str) -> int:
    return client.batches.retrieve(batch_id).request_counts.completed


def usage_rows(server: Any, ids: set[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        status, page = server.call("GET", f"/admin/v1/usage?limit=1000{after}", key=server.admin_key)
        assert status == 200, page
        rows += [row for row in page["data"] if row["request_id"] in ids]
        if not page["has_more"]:
            return rows
        after = f"&after={page['last_id']}"


@pytest.mark.parametrize("victims", [["gateway"], ["control"], ["worker"], ["gateway", "control"]])
def test_every_line_has_one_result(
    server: Any, client: OpenAI, victims: list[str], wait_until: Callable[..., Any]
) -> None:
    batch = start(client, jsonl(LINES, "echo", WORDS))

    def done_so_far(count: int) -> Callable[[], bool]:
        def reached() -> bool:
            status, body = server.call("GET", f"/v1/batches/{batch.id}")
            return status == 200 and body["request_counts"]["completed"] >= count

        return reached

    for number, victim in enumerate([*victims, *victims], start=1):
        wait_until(done_so_far(number * 20), "some results")
        os.kill(pid_of(server, victim), signal.SIGKILL)
    wait_until(done_so_far(LINES), "all results")
    wait_until(lambda: server.call("GET", f"/v1/batches/{batch.id}")[1]["status"] == "completed", "the output")
    done = client.batches.retrieve(batch.id)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": LINES, "completed": LINES, "failed": 0}
    assert done.error_file_id is None
    lines = [json.loads(line) for line in client.files.content(done.output_file_id or "").text.splitlines()]
    assert Counter(line["custom_id"] for line in lines) == {f"r{number}": 1 for number in range(1, LINES + 1)}
    for line in lines:
        said = line["response"]["body"]["choices"][0]["message"]["content"].split()
        assert said == [f"w{line['custom_id'][1:]}"] * WORDS
    assert done.usage is not None
    assert done.usage.output_tokens == LINES * WORDS

    ids = {line["response"]["request_id"] for line in lines}
    wait_until(lambda: settled(server, ids), "the usage of every line")
    outcomes = Counter(row["outcome"] for row in usage_rows(server, ids))
    assert outcomes["completed"] >= LINES
    if victims == ["control"]:
        assert outcomes == {"completed": LINES}, "nothing runs twice because control was away"
    else:
        assert outcomes["completed"] < LINES + 8 * CONCURRENCY * len(victims)


def settled(server: Any, ids: set[str]) -> bool:
    rows = usage_rows(server, ids)
    billed = {row["request_id"] for row in rows if row["outcome"] == "completed"}
    return billed == ids and all(row["outcome"] != "open" for row in rows)


def test_callers_who_wait_go_first(client: OpenAI, wait_until: Callable[..., Any]) -> None:
    batch = start(client, jsonl(LINES, "echo", WORDS))
    wait_until(lambda: completed(client, batch.id) > 0, "the batch to run")
    streams = [
        client.chat.completions.create(model="held", messages=[{"role": "user", "content": "word " * 30}], stream=True)
        for _ in range(CONCURRENCY)
    ]
    before = completed(client, batch.id)
    threads = [threading.Thread(target=lambda stream=stream: list(stream)) for stream in streams]
    for thread in threads:
        thread.start()
    running = 0
    while all(thread.is_alive() for thread in threads):
        running = completed(client, batch.id)
        time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    # All of them were in flight the whole time: what ran then may end, and nothing else began.
    assert running - before <= CONCURRENCY * 2
    assert running < LINES
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the batch to go on")


def test_a_model_that_is_away_holds_up_only_its_own_batch(
    server: Any, client: OpenAI, wait_until: Callable[..., Any]
) -> None:
    worker = pid_of(server, "worker", "held")
    os.kill(worker, signal.SIGSTOP)
    try:
        stuck = start(client, jsonl(CONCURRENCY - 1, "held", 1))
        quick = start(client, jsonl(20, "echo", 1))
        wait_until(lambda: client.batches.retrieve(quick.id).status == "completed", "the other batch")
        assert client.batches.retrieve(stuck.id).status == "in_progress"
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: client.batches.retrieve(stuck.id).status == "completed", "the batch that waited")
