"""Keys and values outside a context: how llama.cpp writes a sequence's state, cut into tokens and put together again.

The state of a sequence (llama_state_seq_get_data) is a head, one entry for each cell, then for each layer a row of keys
for each cell, then the same for values. A row belongs to one token, so prefixes can be shared, cut and joined. Models
whose state is not of this shape (recurrent, sliding window) are told by `Layout.of`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
_WORD = struct.Struct("<I")
_LAYER = struct.Struct("<IQ")
_AFTER_CELLS = 4
"""Words between the cells and the first layer; the second one is the number of layers."""


class UnknownLayout(Exception):
    """The state of this model's sequences cannot be cut; the message says where it differs."""


class Cells:
    """Keys and values of a row of tokens: one array [tokens, bytes] for each layer's keys, then values."""

    __slots__ = ("planes", "size")

    def __init__(self, planes: list[Bytes]) -> None:
        self.planes = planes
        self.size = sum(plane.nbytes for plane in planes)

    def __len__(self) -> int:
        return len(self.planes[0])

    def part(self, begin: int, end: int) -> "Cells":
        return Cells([plane[begin:end].copy() for plane in self.planes])


@dataclass(frozen=True)
class Layout:
    """`streams`: sequences of the context. `rows`: (type, bytes) of a token's row in each layer: keys, then values."""

    magic: int
    streams: int
    middle: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]

    @cached_property
    def bytes_per_token(self) -> int:
        return sum(size for _, size in self.rows)

    @classmethod
    def of(cls, state: Bytes, tokens: int, slot: int, streams: int) -> "Layout":
        """From the state of `slot`, which holds so many tokens. UnknownLayout when it is of another shape."""
        data = state.tobytes()
        try:
            magic, _, said = struct.unpack_from("<III", data)
            at = 12 + 4 * slot
            (count,) = _WORD.unpack_from(data, at)
            if (said, count) != (streams, tokens):
                raise UnknownLayout(f"{said} sequences, {count} cells instead of {streams} and {tokens}")
            at += 4 + 12 * tokens
            middle = struct.unpack_from(f"<{_AFTER_CELLS}I", data, at)
            at += 4 * _AFTER_CELLS
            rows = []
            for _ in range(2 * middle[1]):
                kind, size = _LAYER.unpack_from(data, at)
                rows.append((kind, size))
                at += _LAYER.size + size * tokens
        except struct.error as error:
            raise UnknownLayout(f"it ends early: {error}") from error
        if middle[0] != 0 or at + 4 * (streams - slot - 1) != len(data):
            raise UnknownLayout(f"{len(data)} bytes, of which {at} are understood")
        layout = cls(magic, streams, middle, tuple(rows))
        if not np.array_equal(layout.join([layout.cut(state, slot, 0, tokens)], slot), state):
            raise UnknownLayout("putting it together again gives another state")
        return layout

    def cut(self, state: Bytes, slot: int, begin: int, end: int) -> Cells:
        """Of positions `begin` to `end`, copied out of the state of `slot`."""
        (count,) = _WORD.unpack_from(state.data, 12 + 4 * slot)
        at = 16 + 4 * slot + 12 * count + 4 * _AFTER_CELLS
        planes = []
        for _, size in self.rows:
            at += _LAYER.size
            planes.append(state[at + begin * size : at + end * size].reshape(end - begin, size).copy())
            at += size * count
        return Cells(planes)

    def join(self, parts: Sequence[Cells], slot: int) -> Bytes:
        """The state in which `slot` holds the parts from position 0 on."""
        tokens = sum(len(part) for part in parts)
        before, after = b"\0\0\0\0" * slot, b"\0\0\0\0" * (self.streams - slot - 1)
        head = struct.pack("<III", self.magic, slot, self.streams) + before + _WORD.pack(tokens)
        cells = np.empty((tokens, 3), np.uint32)
        cells[:, 0], cells[:, 1], cells[:, 2] = np.arange(tokens), 1, slot
        head += cells.tobytes() + struct.pack(f"<{_AFTER_CELLS}I", *self.middle)
        state = np.empty(len(head) + sum(_LAYER.size + size * tokens for _, size in self.rows) + len(after), np.uint8)
        state[: len(head)] = np.frombuffer(head, np.uint8)
        at = len(head)
        for layer, (kind, size) in enumerate(self.rows):
            state[at : at + _LAYER.size] = np.frombuffer(_LAYER.pack(kind, size), np.uint8)
            at += _LAYER.size
            for part in parts:
                plane = part.planes[layer]
                state[at : at + plane.nbytes] = plane.reshape(-1)
                at += plane.nbytes
        state[at:] = 0
        return state
