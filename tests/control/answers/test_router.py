"""The internal calls on a real control process."""

import json
from typing import Any

import msgspec

from tokenworks.answers.records import PATH, RESPONSE, Page, Save, Saved


def test_answers_are_saved_and_read_by_their_project(running: Any) -> None:
    assert running.call("GET", f"{PATH}?project=p&kind=response").status == 401
    body = Save(RESPONSE, "proj_unknown", "m", "completed", 1, b"{}", create=True, ended=True)
    assert running.internal("POST", f"{PATH}/resp_1", msgspec.msgpack.encode(body)).status == 404
    assert running.internal("POST", f"{PATH}/resp_1", b"garbage").status == 400
    assert running.internal("GET", f"{PATH}/resp_1?project=p&kind=response").status == 404
    assert running.internal("DELETE", f"{PATH}/resp_1?project=p&kind=response").status == 404
    assert running.internal("POST", f"{PATH}/resp_1/cancel?project=p&kind=response").status == 404
    assert running.internal("GET", f"{PATH}/resp_1").status == 400  # without a project
    empty = running.internal("GET", f"{PATH}?project=p&kind=response")
    assert msgspec.msgpack.decode(empty.raw, type=Page) == Page([], False)


def test_a_save_comes_back_as_it_was(running: Any) -> None:
    keys = running.admin("GET", "/admin/v1/keys").json["data"]
    project = keys[0]["project_id"]
    save = Save(RESPONSE, project, "m", "completed", 1, json.dumps({"a": 1}).encode(), create=True, ended=True)
    answer = running.internal("POST", f"{PATH}/resp_kept", msgspec.msgpack.encode(save))
    assert msgspec.msgpack.decode(answer.raw, type=Saved) == Saved("completed", True)
    found = running.internal("GET", f"{PATH}/resp_kept?project={project}&kind=response")
    assert msgspec.msgpack.decode(found.raw)["body"] == save.body
    assert running.internal("DELETE", f"{PATH}/resp_kept?project={project}&kind=response").status == 204
