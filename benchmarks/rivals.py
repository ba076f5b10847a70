"""Other gateways, installed on first use into the cache folder and run pinned to one core, beside ours."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.processes import SERVER_CORE, free_port, planes, process

LITELLM, PORTKEY = "litellm[proxy]==1.100.0", "@portkey-ai/gateway@1.15.2"
HONO = "1.14.0"
"""Of @hono/node-server. Portkey's own range takes newer ones, and from 1.14.2 on it answers every stream with 500
(https://github.com/Portkey-AI/gateway/issues/1389)."""
CACHE = Path(os.environ.get("TOKENWORKS_CACHE_DIR", ".cache")).resolve() / "bench"


@dataclass(frozen=True)
class Running:
    """A gateway that is started, not yet ready."""

    url: str
    pid: int
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def ours(directory: Path, upstream: int) -> Iterator[Running]:
    config = (
        f'[providers.static]\nprotocol = "openai_chat"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        '[models.assistant]\ntargets = ["static/m"]\nprice = {input = 0.15, output = 0.60}\n'
    )
    with planes(directory, config, gateway_core=SERVER_CORE, control_core=SERVER_CORE) as running:
        yield Running(running.url, running.gateway.pid, running.key)


@contextlib.contextmanager
def litellm(directory: Path, upstream: int) -> Iterator[Running]:
    """Its proxy with one worker and a master key, without a database."""
    program = _litellm()
    config = {
        "model_list": [
            {
                "model_name": "assistant",
                "litellm_params": {"model": "openai/m", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "x"},
            }
        ],
        "general_settings": {"master_key": "sk-bench"},
        "litellm_settings": {"telemetry": False},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR", str(program)]
    command += ["--config", str(directory / "config.yaml"), "--port", str(port), "--host", "127.0.0.1"]
    with process([*command, "--num_workers", "1"], SERVER_CORE, directory / "litellm.log") as running:
        yield Running(f"http://127.0.0.1:{port}", running.pid, "sk-bench")


@contextlib.contextmanager
def portkey(directory: Path, upstream: int) -> Iterator[Running]:
    """It keeps no configuration: each request says where it goes."""
    server = _portkey()
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["env", "NODE_ENV=production", "TRUSTED_CUSTOM_HOSTS=127.0.0.1,localhost", "node", str(server)]
    with process([*command, f"--port={port}", "--headless"], SERVER_CORE, directory / "portkey.log") as running:
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1"}
        yield Running(f"http://127.0.0.1:{port}", running.pid, "x", headers)


GATEWAYS = {"Tokenworks": ours, f"LiteLLM {LITELLM.rpartition('=')[2]}": litellm}
GATEWAYS |= {f"Portkey {PORTKEY.rpartition('@')[2]}": portkey}


def tree_megabytes(root: int) -> float:
    """Resident memory of a process and all that it started."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            parents[int(status.parent.name)] = int(values["PPid"])
            sizes[int(status.parent.name)] = int(values.get("VmRSS", "0 kB").split()[0])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return sum(sizes.get(pid, 0) for pid in found) / 1024


def _litellm() -> Path:
    """An environment of its own: its pins do not go with ours."""
    program = CACHE / "litellm" / "bin" / "litellm"
    if not program.exists():
        with Console(stderr=True).status(f"installing {LITELLM} into {CACHE}"):
            subprocess.run([sys.executable, "-m", "venv", str(CACHE / "litellm")], check=True)
            pip = [str(CACHE / "litellm" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, LITELLM])
    return program


def _portkey() -> Path:
    folder = CACHE / f"portkey-{PORTKEY.rpartition('@')[2]}-{HONO}"
    server = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not server.exists():
        with Console(stderr=True).status(f"installing {PORTKEY} into {CACHE}"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text(json.dumps({"overrides": {"@hono/node-server": HONO}}))
            _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), PORTKEY])
    return server


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
