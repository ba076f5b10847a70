"""Vectors and scores of texts: a context of its own, as pooling needs the whole of each text in one forward pass."""

from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt

from tokenworks.worker.engines.llama.binding import ffi, library
from tokenworks.worker.engines.llama.kernel import FLASH_ATTENTION, KernelFailed
from tokenworks.worker.engines.llama.model import Model

_UNSPECIFIED, _NONE, _MEAN, _RANK = -1, 0, 1, 4
_PROBABILITIES = ("qwen3", "qwen3vl")
"""Architectures whose scores llama.cpp makes probabilities of by itself:
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-graph.cpp, `build_pooling`."""
MOST_TEXTS = 32
"""In one forward pass."""

Vector = npt.NDArray[np.float64]


class Embedder:
    """Belongs to one thread. `capacity`: tokens of the longest text, and of all texts of one forward pass."""

    def __init__(self, model: Model, *, capacity: int, threads: int) -> None:
        lib = library()
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = capacity
        params.n_seq_max = MOST_TEXTS
        params.kv_unified = True  # each text may be as long as all together
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
        self._width = model.scores if self.ranks else model.dimensions
        self._probabilities = model.architecture in _PROBABILITIES
        self.capacity = capacity
        self._batch = ffi.new("struct llama_batch *")

    def close(self) -> None:
        if self._context != ffi.NULL:
            self._lib.llama_free(self._context)
            self._context = ffi.NULL

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int | None = None) -> list[Vector]:
        """Of length 1, cut to the first `dimensions` before. At most `MOST_TEXTS` texts with `capacity` tokens."""
        return [_unit(raw[:dimensions]) for raw in self._pooled(rows)]

    def scores(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Of a model that ranks, from 0 to 1: how probable it finds a match. Of a single score, that is the sigmoid."""
        return [self._score(raw) for raw in self._pooled(rows)]

    def _score(self, raw: Vector) -> float:
        if len(raw) == 1:
            return float(1 / (1 + np.exp(-raw[0])))
        if self._probabilities:
            return float(raw[0])
        powers = np.exp(raw - raw.max())
        return float(powers[0] / powers.sum())

    def _pooled(self, rows: Sequence[Sequence[int]]) -> list[Vector]:
        """As llama.cpp gives them: [width] for each row."""
        count = sum(map(len, rows))
        batch = self._batch
        ids = ffi.new("llama_token[]", list(chain.from_iterable(rows)))
        positions = ffi.new("llama_pos[]", [position for row in rows for position in range(len(row))])
        owners = ffi.new("llama_seq_id[]", [index for index, row in enumerate(rows) for _ in row])
        ones = ffi.new("int32_t[]", [1] * count)
        slots = ffi.new("llama_seq_id *[]", [owners + at for at in range(count)])
        wanted = ffi.new("int8_t[]", [1] * count)
        batch.n_tokens, batch.token, batch.pos = count, ids, positions
        batch.n_seq_id, batch.seq_id, batch.logits = ones, slots, wanted
        if self._memory != ffi.NULL:
            self._lib.llama_memory_clear(self._memory, False)
        if (code := self._lib.llama_decode(self._context, batch[0])) != 0:
            raise KernelFailed(f"llama_decode failed with {code} for {count} tokens to embed")
        return [self._read(index) for index in range(len(rows))]

    def _read(self, index: int) -> Vector:
        pointer = self._lib.llama_get_embeddings_seq(self._context, index)
        if pointer == ffi.NULL:
            raise KernelFailed("the model gives no embedding")
        return np.frombuffer(ffi.buffer(pointer, 4 * self._width), np.float32).astype(np.float64)


def packs(lengths: Sequence[int], most: int) -> list[slice]:
    """Texts, in order, that go into one forward pass together: at most `MOST_TEXTS`, and of `most` tokens together
    unless one alone is longer."""
    found, begin = [], 0
    ends = [0, *accumulate(lengths)]
    for index in range(1, len(lengths) + 1):
        full = index - begin == MOST_TEXTS
        if index == len(lengths) or full or ends[index + 1] - ends[begin] > most:
            found.append(slice(begin, index))
            begin = index
    return found


def _unit(raw: Vector) -> Vector:
    length = float(np.linalg.norm(raw))
    return raw / length if length else raw
