"""A LoRA adapter is a model of its own for callers, on the replicas of another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.worker.engines.llama.test_adapters import write_adapter

CONFIG = """
[models.base]
engine = "llama"
weights = "smollm2-135m"
options = {{ adapters = "{folder}", slots = 2, context = 1024, chat_template = "smollm2" }}

[models.poet]
adapter_of = "base"
price = {{ input = 0, output = 3.0 }}
"""


def test_it_is_called_answered_and_billed_by_its_own_name(
    serve: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    write_adapter(tmp_path / "poet.gguf", 1)
    (tmp_path / "models.toml").write_text(CONFIG.format(folder=tmp_path))
    with serve(tmp_path / "data", "--config", str(tmp_path / "models.toml")) as server:
        listed = {model["id"] for model in server.call("GET", "/v1/models")[1]["data"]}
        assert {"base", "poet"} <= listed
        said = {}
        for name in ("base", "poet"):
            body = {"model": name, "prompt": "The sea is", "max_tokens": 8, "temperature": 0}
            status, answer = server.call("POST", "/v1/completions", body)
            assert status == 200, answer
            assert answer["model"] == name
            assert answer["usage"]["cost"] == (0.000024 if name == "poet" else 0)
            said[name] = answer["choices"][0]["text"]
        assert said["base"] != said["poet"]

        def billed() -> Any:
            found = server.call("GET", "/admin/v1/usage", key=server.admin_key)[1]["data"]
            return {each["model"]: each["usage"]["output"] for each in found}

        wait_until(lambda: billed() == {"base": 8, "poet": 8}, "the usage of both")
        (tmp_path / "poet.gguf").unlink()
        status, answer = server.call("POST", "/v1/completions", {"model": "poet", "prompt": "x", "max_tokens": 1})
        assert status in (404, 502, 503), answer
        assert "adapter 'poet'" in answer["error"]["message"]
