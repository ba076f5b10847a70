"""Reads the head of a GGUF file: its metadata, not its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_POOLS = (1, 2, 3)
_RANKS = 4
"""Pooling: mean, first token, last token; a score: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h"""
MOST_KEYS = 65536
LONGEST_STRING = 1 << 26
LONGEST_KEPT_ARRAY = 4096


class NotGGUF(Exception):
    """The message says what is wrong with the file."""


@dataclass(frozen=True, slots=True)
class Metadata:
    values: Mapping[str, Any]

    def of_architecture(self, key: str) -> Any:
        return self.values.get(f"{self.values.get('general.architecture')}.{key}")

    @property
    def context_length(self) -> int | None:
        """What the weights were trained for."""
        length = self.of_architecture("context_length")
        return length if isinstance(length, int) else None

    @property
    def embeds(self) -> bool:
        """Whether it makes a vector of a text: it says how states become one, or reads both ways and cannot write."""
        pooling = self.of_architecture("pooling_type")
        return pooling in _POOLS or self.of_architecture("attention.causal") is False

    @property
    def ranks(self) -> bool:
        return bool(self.of_architecture("pooling_type") == _RANKS)

    @property
    def chat_template(self) -> str | None:
        template = self.values.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token over all layers, in 16 bits; 0 when the file does not tell."""
        layers = self.of_architecture("block_count") or 0
        heads = self.of_architecture("attention.head_count") or 1
        width = (self.of_architecture("embedding_length") or 0) // (max(heads) if isinstance(heads, list) else heads)
        keys = self.of_architecture("attention.key_length") or width
        values = self.of_architecture("attention.value_length") or width
        shared = self.of_architecture("attention.head_count_kv") or heads
        total = sum(shared) if isinstance(shared, list) else shared * layers
        return int(total * (keys + values) * 2)


def read_metadata(path: Path) -> Metadata:
    """NotGGUF, or OSError when the file cannot be read. Long arrays (the vocabulary) are left out."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NotGGUF(f"{path} is no GGUF file; this engine serves only those")
        try:
            version, _tensors, count = struct.unpack("<IQQ", file.read(20))
            if not 2 <= version <= 3 or count > MOST_KEYS:
                raise NotGGUF(f"{path} has GGUF version {version} with {count} keys; versions 2 and 3 are known")
            values = {}
            for _ in range(count):
                key = _text(file)
                values[key] = _value(file, _number(file, "<I"))
        except (struct.error, UnicodeDecodeError, KeyError, EOFError) as error:
            raise NotGGUF(f"{path} is damaged: its metadata cannot be read; fetch it again") from error
    return Metadata(values)


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _text(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    raw = file.read(length) if length <= LONGEST_STRING else b""
    if len(raw) != length:
        raise EOFError
    return raw.decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _SCALARS[kind])
    item, length = _number(file, "<I"), _number(file, "<Q")
    if item in _SCALARS and length > LONGEST_KEPT_ARRAY:
        file.seek(length * struct.calcsize(_SCALARS[item]), 1)
        return None
    found = [_value(file, item) for _ in range(length)]
    return found if length <= LONGEST_KEPT_ARRAY else None
