"""Files with the official `anthropic` client: the same files as OpenAI's clients see, in its own form."""

from datetime import UTC, datetime
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from openai import OpenAI


@pytest.fixture
def client(echo_server: Any) -> Any:
    with Anthropic(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_the_life_of_a_file(client: Anthropic, echo_server: Any) -> None:
    made = client.files.upload(file=("data.csv", b"item,value\napple,30\n", "text/csv"))
    assert (made.type, made.filename, made.mime_type, made.size_bytes) == ("file", "data.csv", "text/csv", 20)
    assert made.created_at <= datetime.now(UTC)
    assert client.files.retrieve_metadata(made.id) == made
    assert client.files.download(made.id).read() == b"item,value\napple,30\n"
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key) as other:
        assert other.files.retrieve(made.id).purpose == "user_data"
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.type) == (made.id, "file_deleted")
    with pytest.raises(anthropic.NotFoundError) as gone:
        client.files.retrieve_metadata(made.id)
    assert gone.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


def test_a_large_file(client: Anthropic) -> None:
    made = client.files.upload(file=("large.bin", bytes(3_000_000)))
    assert made.size_bytes == 3_000_000
    client.files.delete(made.id)


def test_pages_follow_each_other(client: Anthropic) -> None:
    made = [client.files.upload(file=(f"{number}.txt", b"x")).id for number in range(5)]
    assert [file.id for file in client.files.list(limit=2)][:5] == made[::-1]
    assert {file.id for file in client.files.list(ids=[made[0], made[3], "file-none"])} == {made[0], made[3]}
    with pytest.raises(anthropic.BadRequestError, match="page"):
        client.files.list(page="page_none")
    for file_id in made:
        client.files.delete(file_id)
