"""One llama.cpp context: slots of keys and values, and forward passes over them. It belongs to one thread.

Each slot is a stream of its own (kv_unified off): attention reads only its own sequence, whoever else is there. Why,
and what it costs: docs/decisions/0006. Neighbouring slots are computed together, so works come in the order of slots.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenworks.worker.engines.llama.binding import ffi, library
from tokenworks.worker.engines.llama.cells import Bytes, Cells, Layout, UnknownLayout
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.scheduling.sequence import Work

FLASH_ATTENTION = 1
STOPPED = 2
"""What `llama_decode` gives when it was told to stop."""
Rows = npt.NDArray[np.float32]
"""Logits [positions, vocabulary]: views into llama.cpp's memory until the next forward pass; may be written to."""


class KernelFailed(Exception):
    """llama.cpp could not compute; the context is of no use any more."""


class GivenUp(Exception):
    """The forward pass was stopped: it is as if it had not begun."""


class Kernel:
    """`adapters`: loaded ones by name; see adapters.py."""

    def __init__(self, model: Model, *, slots: int, capacity: int, batch: int, threads: int) -> None:
        lib = library()
        params = lib.llama_context_default_params()
        params.n_seq_max = slots
        params.n_ctx = slots * capacity
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION
        params.kv_unified = False
        self._context = lib.llama_init_from_model(model.pointer, params)
        if self._context == ffi.NULL:
            raise KernelFailed(f"no memory for {slots} sequences of {capacity} tokens: lower slots or context")
        self._lib = lib
        self._model = model
        self._memory = lib.llama_get_memory(self._context)
        self.slots = slots
        self.threads = threads
        self.capacity: int = lib.llama_n_ctx_seq(self._context)
        self.batch = batch
        self.adapters: dict[str, Any] = {}
        self._adapter = ""
        self._arrays(batch)
        self.layout = self._find_layout()
        # Asked between two operations of a forward pass. A C function, as one of Python would wait for its lock.
        self._stop = ffi.new("char[2]")
        if self.layout is not None and hasattr(lib, "strlen"):
            lib.llama_set_abort_callback(self._context, ffi.addressof(lib, "strlen"), self._stop)

    def close(self) -> None:
        if self._context != ffi.NULL:
            self._lib.llama_free(self._context)
            self._context = ffi.NULL

    @property
    def cuts(self) -> bool:
        return self.layout is not None

    @property
    def bytes_per_token(self) -> int:
        return self.layout.bytes_per_token if self.layout else 0

    def save(self, slot: int, begin: int, end: int) -> Cells:
        assert self.layout is not None  # noqa: S101 -- without one, nothing is ever saved: see runner.py
        return self.layout.cut(self._state(slot), slot, begin, end)

    def load(self, slot: int, parts: Sequence[Cells]) -> None:
        assert self.layout is not None  # noqa: S101
        state = self.layout.join(parts, slot)
        pointer = ffi.cast("const uint8_t *", state.ctypes.data)
        if self._lib.llama_state_seq_set_data(self._context, pointer, state.nbytes, slot) != state.nbytes:
            raise KernelFailed(f"keys and values of {state.nbytes} bytes do not fit into slot {slot}")

    def clear(self, slot: int) -> None:
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def cut(self, slot: int, length: int) -> None:
        """Forgets positions from `length` on."""
        if not self._lib.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise KernelFailed(f"slot {slot} cannot be cut to {length} tokens")

    def held(self, slot: int) -> int:
        """Tokens in a slot."""
        return int(self._lib.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def stop(self, wanted: bool) -> None:
        """Whether the forward pass that runs is to be given up; from any thread. Not every device can."""
        self._stop[0] = b"\1" if wanted else b"\0"

    def passes(self, works: list[Work]) -> list[list[Work]]:
        """Works that can be computed together: an adapter holds for a whole forward pass."""
        if not any(work.sequence.key[1] for work in works):
            return [works]
        ordered = sorted(works, key=lambda work: work.sequence.key[1])  # stable: slots stay in order
        return [list(group) for _, group in groupby(ordered, key=lambda work: work.sequence.key[1])]

    def compute(self, works: list[Work]) -> list[Rows | None]:
        """A forward pass; for each work that samples, logits of its last token and of each draft. GivenUp when it was
        stopped meanwhile."""
        self._use(works[0].sequence.key[1])
        at = 0
        tokens, positions, slots, wanted = self._tokens, self._positions, self._slots, self._wanted
        first: list[int] = []
        for work in works:
            sequence = work.sequence
            row = sequence.tokens[work.begin : work.end]
            if work.drafts:
                row += work.drafts
            count = len(row)
            tokens[at : at + count] = row
            positions[at : at + count] = range(work.begin, work.begin + count)
            slots[at : at + count] = sequence.slot
            wanted[at : at + count] = 0
            at += count
            if work.samples:
                start = at - 1 - len(work.drafts)
                wanted[start:at] = 1
                first.append(start)
            else:
                first.append(-1)
        self._batch.n_tokens = at
        code = self._lib.llama_decode(self._context, self._batch[0])
        if code == STOPPED:
            for work in works:
                self.cut(work.sequence.slot, work.begin)
            raise GivenUp
        if code != 0:
            raise KernelFailed(f"llama_decode failed with {code} for {at} tokens of {len(works)} sequences")
        return [
            self._rows(start, 1 + len(work.drafts)) if start >= 0 else None
            for start, work in zip(first, works, strict=True)
        ]

    def _rows(self, start: int, count: int) -> Rows:
        # Rows of neighbouring outputs are neighbours in memory.
        pointer = self._lib.llama_get_logits_ith(self._context, start)
        if pointer == ffi.NULL:
            raise KernelFailed(f"no logits for token {start} of the batch")
        width = self._model.tokens
        return np.frombuffer(ffi.buffer(pointer, 4 * count * width), np.float32).reshape(count, width)

    def _use(self, adapter: str) -> None:
        if adapter == self._adapter:
            return
        if adapter:
            pointers = ffi.new("struct llama_adapter_lora *[]", [self.adapters[adapter]])
            self._lib.llama_set_adapters_lora(self._context, pointers, 1, ffi.new("float[]", [1.0]))
        else:
            self._lib.llama_set_adapters_lora(self._context, ffi.NULL, 0, ffi.NULL)
        self._adapter = adapter

    def forget(self, adapter: str) -> None:
        """Frees it."""
        if adapter == self._adapter:
            self._use("")
        if (pointer := self.adapters.pop(adapter, None)) is not None:
            self._lib.llama_adapter_lora_free(pointer)

    def _arrays(self, size: int) -> None:
        """The batch's arrays, filled through numpy: a step costs no call for each token."""
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        self._ones = np.ones(size, np.int32)
        self._batch = ffi.new("struct llama_batch *")
        self._batch.token = ffi.cast("llama_token *", self._tokens.ctypes.data)
        self._batch.pos = ffi.cast("llama_pos *", self._positions.ctypes.data)
        self._batch.n_seq_id = ffi.cast("int32_t *", self._ones.ctypes.data)
        self._batch.logits = ffi.cast("int8_t *", self._wanted.ctypes.data)
        base = ffi.cast("llama_seq_id *", self._slots.ctypes.data)
        self._pointers = ffi.new("llama_seq_id *[]", [base + index for index in range(size)])
        self._batch.seq_id = self._pointers

    def _state(self, slot: int) -> Bytes:
        size = self._lib.llama_state_seq_get_size(self._context, slot)
        state = np.empty(size, np.uint8)
        pointer = ffi.cast("uint8_t *", state.ctypes.data)
        if self._lib.llama_state_seq_get_data(self._context, pointer, size, slot) != size:
            raise KernelFailed(f"the state of slot {slot} cannot be read")
        return state

    def _find_layout(self) -> Layout | None:
        """Tried on two tokens. None: keys and values of this model cannot be cut."""
        if not self._model.cuts:
            return None
        slot, tokens = self.slots - 1, 2
        self._tokens[:tokens], self._positions[:tokens], self._slots[:tokens] = 0, (0, 1), slot
        self._wanted[:tokens] = 0
        self._batch.n_tokens = tokens
        try:
            if self._lib.llama_decode(self._context, self._batch[0]) != 0:
                raise KernelFailed("the first forward pass failed")
            return Layout.of(self._state(slot), tokens, slot, self.slots)
        except UnknownLayout:
            return None
        finally:
            self.clear(slot)
