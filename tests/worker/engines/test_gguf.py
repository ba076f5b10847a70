"""The head of a real GGUF file, and of broken ones."""

from pathlib import Path

import pytest

from tokenworks.worker.engines.gguf import NotGGUF, read_metadata


def test_the_default_weights(smollm2: Path) -> None:
    metadata = read_metadata(smollm2)
    assert metadata.values["general.architecture"] == "llama"
    assert metadata.context_length == 8192
    assert metadata.cache_bytes_per_token() == 30 * 3 * (64 + 64) * 2  # layers, heads, width of key and value, 16 bits
    assert "<|im_start|>" in (metadata.chat_template or "")


@pytest.mark.parametrize("length", [0, 3, 10, 30, 5000])
def test_a_cut_file_is_told(smollm2: Path, tmp_path: Path, length: int) -> None:
    broken = tmp_path / "broken.gguf"
    with smollm2.open("rb") as whole:
        broken.write_bytes(whole.read(length))
    with pytest.raises(NotGGUF, match=r"no GGUF file|is damaged"):
        read_metadata(broken)


def test_another_version_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + (99).to_bytes(4, "little") + bytes(16))
    with pytest.raises(NotGGUF, match="version 99"):
        read_metadata(broken)
