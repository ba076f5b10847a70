"""The examples of docs/stored-objects.md, run as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "stored-objects.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["responses", "predictions", "webhooks"])
def test_an_example_runs(example: str, patient_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TOKENWORKS_URL", patient_server.url)
    monkeypatch.setenv("TOKENWORKS_API_KEY", patient_server.api_key)
    monkeypatch.setenv("TOKENWORKS_MODEL", "echo")
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, str(PAGE), "exec"), scope)
    client = scope["client"]
    if hasattr(client, "responses"):
        client.close()
    else:
        client._client.close()
        assert capsys.readouterr().out == "Say hello.\nSay hello."
