"""Files and batches with the official `together` client: said, put at a signed URL, run, read."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import together
from together import AsyncTogether, Together

PATIENCE = 120.0


@pytest.fixture
def client(echo_server: Any) -> Any:
    with Together(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """In this host's form: without method and url."""
    path = tmp_path / "requests.jsonl"
    asked = [{"model": "echo", "messages": [{"role": "user", "content": f"number {n}"}]} for n in range(5)]
    path.write_text("\n".join(json.dumps({"custom_id": str(n), "body": body}) for n, body in enumerate(asked)))
    return path


def test_the_life_of_a_file(client: Together, lines: Path) -> None:
    made = client.files.upload(lines, purpose="batch-api", check=False)
    assert (made.filename, made.bytes, made.file_type) == ("requests.jsonl", lines.stat().st_size, "jsonl")
    assert (made.purpose, made.processing_status) == ("batch-api", "COMPLETED")
    assert made.to_dict().items() <= client.files.retrieve(made.id).to_dict().items()
    assert client.files.content(made.id).read() == lines.read_bytes()
    assert made.id in [each.id for each in client.files.list().data]
    assert client.files.delete(made.id).deleted
    with pytest.raises(together.NotFoundError):
        client.files.retrieve(made.id)


def test_a_batch(client: Together, lines: Path) -> None:
    file = client.files.upload(lines, purpose="batch-api", check=False)
    job = client.batches.create(endpoint="/v1/chat/completions", input_file_id=file.id).job
    assert job is not None and job.id is not None
    assert job.status == "VALIDATING"
    deadline = time.monotonic() + PATIENCE
    while (done := client.batches.retrieve(job.id)).status != "COMPLETED":
        assert time.monotonic() < deadline, done
        time.sleep(0.05)
    assert (done.progress, done.x_model_id, done.error_file_id) == (100, "echo", None)
    assert done.created_at and done.completed_at and done.created_at <= done.completed_at
    found = [json.loads(line) for line in client.files.content(done.output_file_id or "").read().splitlines()]
    said = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in found}
    assert said == {str(n): f"number {n}" for n in range(5)}
    assert job.id in [each.id for each in client.batches.list()]
    with pytest.raises(together.BadRequestError, match="completed"):
        client.batches.cancel(job.id)
    for wrong in ({"model_id": "echo"}, {"priority": 3}, {"completion_window": "1h"}):
        with pytest.raises(together.BadRequestError, match=next(iter(wrong))):
            client.batches.create(endpoint="/v1/chat/completions", input_file_id=file.id, **wrong)  # type: ignore[arg-type]


def test_the_async_client(echo_server: Any, lines: Path) -> None:
    async def run() -> bytes:
        async with AsyncTogether(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
            made = await client.files.upload(lines, purpose="fine-tune", check=False)
            return await (await client.files.content(made.id)).read()

    assert asyncio.run(run()) == lines.read_bytes()


def test_a_signed_url_is_good_for_one_file_and_its_content(echo_server: Any) -> None:
    headers = {"authorization": f"Bearer {echo_server.api_key}", "user-agent": "Together/Python"}
    fields = {"purpose": "batch-api", "file_name": "a.jsonl", "file_type": "jsonl", "checksum": "0" * 64}
    form = {name: (None, value) for name, value in fields.items()}
    said = httpx.post(f"{echo_server.url}/v1/files", headers=headers, files=form)
    assert said.status_code == 302
    location, file_id = said.headers["location"], said.headers["x-together-file-id"]
    for forged in (
        location.replace(file_id, "file-" + "0" * 24),
        location.replace("checksum=0", "checksum=1"),
        location.replace("expires=", "expires=9"),
        location.replace("signature=", "signature=x"),
    ):
        assert httpx.put(forged, content=b"x").status_code == 403
    assert httpx.get(location).status_code == 403
    wrong = httpx.put(location, content=b"x")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "checksum")
    for name in ("purpose", "checksum"):
        refused = httpx.post(f"{echo_server.url}/v1/files", headers=headers, files=form | {name: (None, "x")})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
