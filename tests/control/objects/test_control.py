"""Control with its objects in a bucket: a file there and back, and a batch from input to output."""

import json
import os
from collections.abc import Callable
from typing import Any


def test_files_and_batches_in_a_bucket(
    control: Callable[..., Any], project_of: Any, make: Any, bucket: tuple[Any, str]
) -> None:
    server, endpoint = bucket
    url = f"s3://bucket/p?endpoint={endpoint}&region={server.region}"
    keys = {"AWS_ACCESS_KEY_ID": server.access, "AWS_SECRET_ACCESS_KEY": server.secret}
    project = project_of(control("--object-store", url, "--local-model", "smollm2-135m", environment=keys).start())
    data = os.urandom(20_000_000)
    file = project.upload(data, "user_data").json
    assert server.objects[f"/bucket/p/files/{file['id']}"] == data
    assert project.call("GET", f"/v1/files/{file['id']}/content").raw == data
    lines = [
        {
            "custom_id": str(n),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "smollm2-135m", "n": n},
        }
        for n in range(1, 41)
    ]
    batch = project.batch("\n".join(json.dumps(line) for line in lines).encode())
    project.until(batch["id"], "in_progress")
    before = len(server.requests)
    leased = project.turn(n=100)
    assert [json.loads(line.body)["n"] for line in leased] == list(range(1, 41))
    assert len(server.requests) - before == 1, "neighbours are read at once"
    project.turn(results=tuple(make.result(line, b'{"x":1}') for line in leased))
    done = project.until(batch["id"], "completed")
    assert len(project.content(done["output_file_id"])) == 40
