"""Weights and their vocabulary. Thread-safe once loaded: contexts are what must stay with one thread."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenworks.worker.engines.llama.binding import ffi, library

LONGEST_PIECE = 512
_CONTROL, _USER_DEFINED = 8, 16
"""Attributes of tokens that stand for no text of a person."""


class LoadFailed(Exception):
    """The file cannot be loaded; the message says what llama.cpp makes of it."""


class Model:
    def __init__(self, path: Path, *, gpu_layers: int = -1) -> None:
        lib = library()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.pointer = lib.llama_model_load_from_file(str(path).encode(), params)
        if self.pointer == ffi.NULL:
            raise LoadFailed(f"{path} cannot be loaded: see the lines before; is it a complete GGUF file?")
        self._lib = lib
        self._vocabulary = lib.llama_model_get_vocab(self.pointer)
        self.tokens: int = lib.llama_vocab_n_tokens(self._vocabulary)
        self.context_length: int = lib.llama_model_n_ctx_train(self.pointer)
        self.size: int = lib.llama_model_size(self.pointer)
        """Bytes of its weights."""
        self.dimensions: int = lib.llama_model_n_embd_out(self.pointer)
        self.bos: int = lib.llama_vocab_bos(self._vocabulary)
        self.eos: int = lib.llama_vocab_eos(self._vocabulary)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self._vocabulary)
        self.scores: int = max(1, lib.llama_model_n_cls_out(self.pointer))
        """Of a model that ranks: how many it gives for a text."""

    def close(self) -> None:
        if self.pointer != ffi.NULL:
            self._lib.llama_model_free(self.pointer)
            self.pointer = ffi.NULL

    @property
    def cuts(self) -> bool:
        """Whether keys and values belong to tokens, so that prefixes can be shared."""
        lib = self._lib
        recurrent = lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer)
        return not recurrent and lib.llama_model_n_swa(self.pointer) == 0

    @property
    def architecture(self) -> str:
        return self.metadata("general.architecture") or ""

    @property
    def chat_template(self) -> str | None:
        return self._template(ffi.NULL)

    def _template(self, name: Any) -> str | None:
        found = self._lib.llama_model_chat_template(self.pointer, name)
        return ffi.string(found).decode("utf-8", "replace") if found != ffi.NULL else None

    def metadata(self, key: str) -> str | None:
        buffer = ffi.new("char[]", 4096)
        length = self._lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, 4096)
        return ffi.string(buffer).decode("utf-8", "replace") if length >= 0 else None

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token, special ones as they are written."""
        buffer = ffi.new("char[]", LONGEST_PIECE)
        convert, vocabulary = self._lib.llama_token_to_piece, self._vocabulary
        found = []
        for token in range(self.tokens):
            length = convert(vocabulary, token, buffer, LONGEST_PIECE, 0, True)
            found.append(ffi.buffer(buffer, length)[:] if length > 0 else b"")
        return found

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        is_end = self._lib.llama_vocab_is_eog
        return frozenset(token for token in range(self.tokens) if is_end(self._vocabulary, token))

    @cached_property
    def special(self) -> frozenset[int]:
        attributes = self._lib.llama_vocab_get_attr
        return frozenset(
            token for token in range(self.tokens) if attributes(self._vocabulary, token) & (_CONTROL | _USER_DEFINED)
        )

    def text_of(self, token: int) -> str:
        return self.pieces[token].decode("utf-8", "replace") if 0 <= token < self.tokens else ""

    def tokenize(self, text: str, *, special: bool = True, first: bool = False) -> list[int]:
        """`special`: special tokens in the text are such. `first`: it begins a sequence, as the model expects one."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 2
        buffer: Any = ffi.new("llama_token[]", room)
        count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), buffer, room, first, special)
        if count < 0:
            buffer = ffi.new("llama_token[]", -count)
            count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), buffer, -count, first, special)
        return list(ffi.unpack(buffer, count)) if count > 0 else []

    def tokenize_pieces(self, pieces: list[tuple[str, bool]]) -> list[int]:
        """[(text, whether its special tokens are special)], as a rendered conversation comes."""
        tokens: list[int] = [self.bos] if self.adds_bos and self.bos >= 0 else []
        for text, special in pieces:
            tokens += self.tokenize(text, special=special)
        if len(tokens) > 1 and tokens[0] == tokens[1] == self.bos:  # the template writes it, too
            del tokens[0]
        return tokens

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """What a model that ranks is shown: by its own template, or as its tokenizer joins two texts. Special tokens
        in either are text."""
        if (template := self._template(b"rerank")) is None:
            end, separate = (
                self._ending,
                [self._separator] if self._lib.llama_vocab_get_add_sep(self._vocabulary) else [],
            )
            begin = [self.bos] if self.adds_bos and self.bos >= 0 else []
            texts = self.tokenize(query, special=False), self.tokenize(document, special=False)
            return [*begin, *texts[0], *end, *separate, *texts[1], *end]
        given = {"{query}": query, "{document}": document}
        tokens = []
        for at, piece in enumerate(self._special_texts.split(template)):
            if at % 2:
                tokens += self.tokenize(piece)
            elif piece:
                filled = re.sub(r"\{query\}|\{document\}", lambda found: given[found[0]], piece)
                tokens += self.tokenize(filled, special=False)
        return tokens

    @property
    def _separator(self) -> int:
        return int(self._lib.llama_vocab_sep(self._vocabulary))

    @property
    def _ending(self) -> list[int]:
        """What ends each text of a pair: vocabularies of encoders call it a separator."""
        if not self._lib.llama_vocab_get_add_eos(self._vocabulary):
            return []
        return [self.eos if self.eos >= 0 else self._separator]

    @cached_property
    def _special_texts(self) -> re.Pattern[str]:
        texts = sorted(filter(None, map(self.text_of, self.special | self.ends)), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts)) or '(?!)'})")
