"""Vectors of texts: a context of its own, as pooling needs the whole text in one forward pass."""

from collections.abc import Sequence

import numpy as np

from tokenworks.worker.engines.llama.binding import ffi, library
from tokenworks.worker.engines.llama.kernel import FLASH_ATTENTION, KernelFailed
from tokenworks.worker.engines.llama.model import Model

_UNSPECIFIED, _NONE, _MEAN, _RANK = -1, 0, 1, 4


class Embedder:
    """Belongs to one thread. `capacity`: the longest text in tokens."""

    def __init__(self, model: Model, *, capacity: int, threads: int) -> None:
        lib = library()
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = capacity
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION
        params.embeddings = True
        params.pooling_type = _UNSPECIFIED
        self._context = lib.llama_init_from_model(model.pointer, params)
        if self._context != ffi.NULL and lib.llama_pooling_type(self._context) in (_NONE, _UNSPECIFIED):
            lib.llama_free(self._context)  # weights that were made to generate: the mean of their last states
            params.pooling_type = _MEAN
            self._context = lib.llama_init_from_model(model.pointer, params)
        if self._context == ffi.NULL:
            raise KernelFailed(f"no memory to embed texts of {capacity} tokens: lower context")
        self._lib = lib
        self._memory = lib.llama_get_memory(self._context)
        self.ranks = lib.llama_pooling_type(self._context) == _RANK
        self._width = 1 if self.ranks else model.dimensions
        self.capacity = capacity
        self._batch = ffi.new("struct llama_batch *")

    def close(self) -> None:
        if self._context != ffi.NULL:
            self._lib.llama_free(self._context)
            self._context = ffi.NULL

    def embed(self, tokens: Sequence[int], dimensions: int | None = None) -> list[float]:
        """Of length 1, cut to the first `dimensions` before. For a model that ranks: its score alone."""
        count = len(tokens)
        batch = self._batch
        ids = ffi.new("llama_token[]", list(tokens))
        positions = ffi.new("llama_pos[]", list(range(count)))
        ones = ffi.new("int32_t[]", [1] * count)
        slot = ffi.new("llama_seq_id[]", [0])
        slots = ffi.new("llama_seq_id *[]", [slot] * count)
        wanted = ffi.new("int8_t[]", [1] * count)
        batch.n_tokens, batch.token, batch.pos = count, ids, positions
        batch.n_seq_id, batch.seq_id, batch.logits = ones, slots, wanted
        if self._memory != ffi.NULL:
            self._lib.llama_memory_clear(self._memory, False)
        if (code := self._lib.llama_decode(self._context, batch[0])) != 0:
            raise KernelFailed(f"llama_decode failed with {code} for {count} tokens to embed")
        pointer = self._lib.llama_get_embeddings_seq(self._context, 0)
        if pointer == ffi.NULL:
            raise KernelFailed("the model gives no embedding")
        vector = np.frombuffer(ffi.buffer(pointer, 4 * self._width), np.float32)[:dimensions].astype(np.float64)
        if self.ranks:
            return [float(vector[0])]
        length = float(np.linalg.norm(vector))
        return [float(value) for value in (vector / length if length else vector)]
