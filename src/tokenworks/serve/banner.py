"""What `serve` prints once it answers: for people a block to copy from, for scripts one JSON line."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

BOLD, DIM, GREEN, END = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches it: a wildcard address is not one to connect to."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def as_json(url: str, bootstrap: Path, models: tuple[str, ...]) -> str:
    keys = _keys(bootstrap)
    return json.dumps(
        {
            "base_url": f"{url}/v1",
            "api_key": keys.get("api_key"),
            "admin_key_file": str(bootstrap),
            "models": list(models),
            "pid": os.getpid(),
        }
    )


EXAMPLES: dict[str | None, tuple[str, dict[str, Any]]] = {
    None: ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}),
    "embeddings": ("/v1/embeddings", {"input": "Hello!"}),
    "rerank": ("/v1/rerank", {"query": "Who barks?", "documents": ["A cat.", "A dog."]}),
}
"""What to try: of a model that writes; of one that only makes embeddings, or only ranks."""


def as_text(
    url: str,
    bootstrap: Path,
    models: tuple[str, ...],
    seconds: float,
    *,
    colour: bool,
    measures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """`measures`: of models that write nothing, what they do."""
    bold, dim, green, end = (BOLD, DIM, GREEN, END) if colour else ("", "", "", "")
    key = _keys(bootstrap).get("api_key", f'in {bootstrap} ("api_key")')
    tried = next((model for model in models if model not in measures), models[0] if models else "MODEL")
    path, question = EXAMPLES[measures.get(tried)]
    rows = {
        "Base URL": f"{bold}{url}/v1{end}",
        "API key": f"{bold}{key}{end}",
        "Admin key": f'"admin_key" in {_near(bootstrap)}',
        "Models": ", ".join(models),
        "Logs": f"{_near(bootstrap.parent / 'logs')}/",
    }
    table = "\n".join(f"  {dim}{name:<11}{end}{value}" for name, value in rows.items())
    chat = f"\n  {dim}Or talk to it in another terminal:{end} tokenworks chat{_chat_options(url, bootstrap)}"
    return f"""
{green}●{end} {bold}Tokenworks is ready{end} {dim}after {seconds:.1f} s{end}

{table}

  {dim}Try it:{end}

curl {url}{path} \\
  -H 'Authorization: Bearer {key}' \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(json.dumps({"model": tried, **question}))}
{"" if tried in measures else chat}
  {dim}Ctrl-C stops it.{end}
"""


def _chat_options(url: str, bootstrap: Path) -> str:
    options = "" if url == "http://127.0.0.1:8080" else f" --url {url}"
    beside = bootstrap.parent == Path.cwd() / ".data"
    return options if beside else f"{options} --data-dir {shlex.quote(str(_near(bootstrap.parent)))}"


def _near(path: Path) -> Path:
    """Relative to the working directory where it lies in it: shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _keys(bootstrap: Path) -> dict[str, Any]:
    """Empty while (or when) the file cannot be read: the block then says where to look instead."""
    try:
        keys = json.loads(bootstrap.read_bytes())
    except (OSError, ValueError):
        return {}
    return keys if isinstance(keys, dict) else {}
