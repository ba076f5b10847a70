"""Defaults follow the machine and the weights; the isolation settings are really handed to llama.cpp."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import msgspec
import pytest
from tests import tiny

from tokenworks.client import Address
from tokenworks.worker.engines.base import EngineFailed, OptionError, Setup
from tokenworks.worker.engines.gguf import Metadata
from tokenworks.worker.engines.llama_server.engine import LlamaServer
from tokenworks.worker.engines.llama_server.plan import Options, Plan, context_per_slot

GIB = 1 << 30
SMALL = Metadata(
    {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.block_count": 30,
        "llama.embedding_length": 576,
        "llama.attention.head_count": 9,
        "llama.attention.head_count_kv": 3,
    }
)


def test_the_context_is_bounded_by_memory_training_and_catalog() -> None:
    assert context_per_slot(Options(), SMALL, None, 64 * GIB) == 4096
    assert context_per_slot(Options(), SMALL, 2048, 64 * GIB) == 2048
    tight = context_per_slot(Options(), SMALL, None, 4 * GIB)
    assert 512 <= tight < 4096
    assert tight * 16 * SMALL.cache_bytes_per_token() <= 4 * GIB / 8
    assert context_per_slot(Options(context=6000), SMALL, None, GIB) == 6000
    assert context_per_slot(Options(context=100_000), SMALL, None, GIB) == 8192
    assert context_per_slot(Options(), Metadata({}), None, GIB) == 4096


def engine(weights: Path | None = None, **options: Any) -> LlamaServer:
    found = LlamaServer(Setup("m", Address.parse("unix:/tmp/unused.sock"), token="t", options=options))
    if weights is not None:
        found.command(weights)
    return found


def test_the_child_gets_exactly_these_parameters(smollm2: Path) -> None:
    """Read back from llama.cpp's own structure, in another process as always."""
    code = (
        "import json, sys, msgspec\n"
        "from tokenworks.worker.engines.llama_server.child import parameters\n"
        "from tokenworks.worker.engines.llama_server.plan import Plan\n"
        "p = parameters(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))\n"
        "names = 'cache_ram_mib cache_idle_slots kv_unified cont_batching n_parallel n_ctx n_batch n_ubatch use_jinja "
        "n_threads_http endpoint_slots endpoint_props endpoint_metrics ui api_keys hostnames'.split()\n"
        "print(json.dumps({name: getattr(p, name) for name in names} | {'alias': sorted(p.model_alias),\n"
        "    'threads': [p.cpuparams.n_threads, p.cpuparams_batch.n_threads],\n"
        "    'poll': [int(p.cpuparams.poll), int(p.cpuparams_batch.poll)]}))\n"
    )
    told = engine(smollm2, slots="3", context="1024", threads="2", poll="7").told()
    done = subprocess.run([sys.executable, "-c", code], input=told, capture_output=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert found["cache_ram_mib"] == 0  # the isolation bug: both must stay off
    assert found["cache_idle_slots"] is False
    assert found["kv_unified"] is False
    assert found["cont_batching"] is True
    assert (found["n_parallel"], found["n_ctx"]) == (3, 3 * 1024)
    assert found["alias"] == ["m"]
    assert found["api_keys"] == ["t"]
    assert found["hostnames"] == ["/tmp/unused.sock"]
    assert found["n_threads_http"] >= 3 + 256  # a queue of callers must leave threads for the looks at its health
    assert found["threads"] == [2, 2]
    assert found["poll"] == [7, 7]
    assert found["use_jinja"] is found["endpoint_metrics"] is True
    assert found["endpoint_slots"] is found["endpoint_props"] is found["ui"] is False


def test_no_secret_is_on_the_command_line(smollm2: Path) -> None:
    found = LlamaServer(Setup("m", Address.parse("unix:/tmp/unused.sock"), token="very-secret"))
    assert "very-secret" not in " ".join(found.command(smollm2))
    assert msgspec.json.decode(found.told(), type=Plan).token == "very-secret"


def test_what_cannot_be_served_is_told() -> None:
    with pytest.raises(EngineFailed, match="needs --weights"):
        engine().command(None)
    with pytest.raises(OptionError, match="did you mean 'slots'"):
        engine(slot="4")
    with pytest.raises(OptionError, match=r"neither a shipped template \(smollm2\) nor a readable file"):
        engine(chat_template="nothing")
    with pytest.raises(OptionError, match="is for embeddings, which llama_server does not do"):
        LlamaServer(Setup("m", Address.parse("unix:/tmp/unused.sock"), capabilities=("embeddings",)))


@pytest.mark.parametrize(
    ("pooling", "kind"), [(gguf.PoolingType.MEAN, "embeddings"), (gguf.PoolingType.RANK, "rerank")]
)
def test_weights_that_write_nothing_are_left_to_the_other_engine(
    tmp_path: Path, pooling: gguf.PoolingType, kind: str
) -> None:
    tiny.encoder(tmp_path / "w.gguf", pooling=pooling)
    with pytest.raises(EngineFailed, match=f"is for {kind}, which llama_server does not do: --engine llama does"):
        engine().command(tmp_path / "w.gguf")
