"""Weights that differ a little from the default ones."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

Copy = Callable[..., Path]


@pytest.fixture(scope="session")
def copy_of(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The first so many layers of the weights. `words`: other texts for some tokens."""

    def made(name: str, layers: int, words: dict[int, str] | None = None) -> Path:
        path = tmp_path_factory.mktemp("weights") / f"{name}.gguf"
        reader = gguf.GGUFReader(smollm2)
        architecture = reader.fields["general.architecture"].contents()
        writer = gguf.GGUFWriter(path, architecture)
        for field in reader.fields.values():
            if field.name.startswith("GGUF.") or field.name == "general.architecture":
                continue
            value, kind = field.contents(), field.types[0]
            if field.name == f"{architecture}.block_count":
                value = layers
            if field.name == "tokenizer.ggml.tokens":
                for token, word in (words or {}).items():
                    value[token] = word
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, value, kind, sub_type=inner)
        for tensor in reader.tensors:
            if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= layers:
                continue
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return made
