"""What weights are for: told by the file, or by the catalog where the file does not know."""

from pathlib import Path

import gguf
import pytest
from tests import tiny

from tokenworks.client import Address
from tokenworks.worker.engines.base import Setup
from tokenworks.worker.engines.gguf import Metadata, read_metadata
from tokenworks.worker.engines.llama.engine import Llama
from tokenworks.worker.engines.purpose import measures

WRITES = Metadata({"general.architecture": "llama", "llama.context_length": 512})
EMBEDS = Metadata({"general.architecture": "bert", "bert.pooling_type": 1})
NO_POOLING = Metadata({"general.architecture": "bert", "bert.attention.causal": False})
RANKS = Metadata({"general.architecture": "qwen3", "qwen3.pooling_type": 4})


def setup(*capabilities: str) -> Setup:
    return Setup("m", Address.parse("unix:/unused.sock"), capabilities=capabilities)


@pytest.mark.parametrize(
    ("metadata", "capabilities", "expected"),
    [
        (WRITES, (), None),
        (WRITES, ("tools", "embeddings"), None),
        (WRITES, ("embeddings",), "embeddings"),
        (WRITES, ("rerank", "embeddings"), "rerank"),
        (EMBEDS, (), "embeddings"),
        (EMBEDS, ("rerank",), "rerank"),
        (NO_POOLING, (), "embeddings"),
        (RANKS, (), "rerank"),
        (RANKS, ("embeddings",), "rerank"),
    ],
)
def test_the_file_says_it_else_the_catalog(metadata: Metadata, capabilities: tuple[str, ...], expected: str) -> None:
    assert measures(setup(*capabilities), metadata) == expected


def test_an_engine_plans_for_what_weights_are_for(tmp_path: Path) -> None:
    tiny.encoder(tmp_path / "e.gguf", pooling=gguf.PoolingType.CLS, context=64)
    tiny.decoder(tmp_path / "d.gguf", context=512)
    assert read_metadata(tmp_path / "e.gguf").embeds
    engine = Llama(setup())
    engine.command(tmp_path / "e.gguf")
    assert engine.plan().measures
    assert engine.plan().context == 64, "not a token beyond what it has positions for"
    assert engine.describe().capabilities == ("embeddings",)
    engine.command(tmp_path / "d.gguf")
    assert not engine.plan().measures
    assert engine.describe().capabilities == ("tools", "json_schema")
