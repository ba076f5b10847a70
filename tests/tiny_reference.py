"""What the weights of `tiny.py` must make of a text: forward passes in numpy, written from the models' papers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tests.tiny import EPSILON, HEADS, LAYERS, ROPE_BASE, WIDTH, Arrays

States = npt.NDArray[np.float64]


def encoded(arrays: Arrays, tokens: Sequence[int]) -> States:
    """A BERT's last states, [tokens, WIDTH]: https://arxiv.org/abs/1810.04805."""
    states = arrays["token_embd.weight"][list(tokens)] + arrays["token_types.weight"][0].astype(np.float64)
    states = _normed(arrays, "token_embd_norm", states + arrays["position_embd.weight"][: len(tokens)])
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        queries, keys, values = (_linear(arrays, f"{block}.attn_{name}", states) for name in "qkv")
        mixed = _attention(queries, keys, values, np.zeros((len(tokens), len(tokens))))
        states = _normed(arrays, f"{block}.attn_output_norm", states + _linear(arrays, f"{block}.attn_output", mixed))
        hidden = _gelu(_linear(arrays, f"{block}.ffn_up", states))
        states = _normed(arrays, f"{block}.layer_output_norm", states + _linear(arrays, f"{block}.ffn_down", hidden))
    return states


def scored(arrays: Arrays, tokens: Sequence[int]) -> float:
    """A BERT's score, from 0 to 1."""
    pooled = np.tanh(_linear(arrays, "cls", encoded(arrays, tokens)[0]))
    return float(1 / (1 + np.exp(-_linear(arrays, "cls.output", pooled)[0])))


def read(arrays: Arrays, tokens: Sequence[int]) -> States:
    """A Qwen3's last states, [tokens, WIDTH]: https://arxiv.org/abs/2505.09388."""
    states = arrays["token_embd.weight"][list(tokens)].astype(np.float64)
    count = len(tokens)
    mask = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        normed = _scaled(states, arrays[f"{block}.attn_norm.weight"])
        queries, keys, values = (normed @ arrays[f"{block}.attn_{name}.weight"].T for name in "qkv")
        queries = _turned(_heads(queries), arrays[f"{block}.attn_q_norm.weight"])
        keys = _turned(_heads(keys), arrays[f"{block}.attn_k_norm.weight"])
        mixed = _attention(queries, keys, values, mask)
        states = states + mixed @ arrays[f"{block}.attn_output.weight"].T
        normed = _scaled(states, arrays[f"{block}.ffn_norm.weight"])
        gate, up = (normed @ arrays[f"{block}.ffn_{name}.weight"].T for name in ("gate", "up"))
        states = states + (gate / (1 + np.exp(-gate)) * up) @ arrays[f"{block}.ffn_down.weight"].T
    return _scaled(states, arrays["output_norm.weight"])


def judged(arrays: Arrays, tokens: Sequence[int]) -> float:
    """How probable a Qwen3 finds the first of its labels."""
    found = np.exp(read(arrays, tokens)[-1] @ arrays["cls.output.weight"].T.astype(np.float64))
    return float(found[0] / found.sum())


def unit(vector: States) -> States:
    return vector / np.linalg.norm(vector)


def _linear(arrays: Arrays, name: str, states: States) -> States:
    return states @ arrays[f"{name}.weight"].T.astype(np.float64) + arrays[f"{name}.bias"]


def _normed(arrays: Arrays, name: str, states: States) -> States:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def _scaled(states: States, weight: npt.NDArray[np.float32]) -> States:
    return states / np.sqrt((states**2).mean(-1, keepdims=True) + EPSILON) * weight


def _heads(states: States) -> States:
    """[tokens, WIDTH] -> [HEADS, tokens, WIDTH / HEADS]; what is so already stays."""
    return states if states.ndim == 3 else states.reshape(len(states), HEADS, WIDTH // HEADS).transpose(1, 0, 2)


def _turned(heads: States, weight: npt.NDArray[np.float32]) -> States:
    """Normed, and turned by position: halves of a head belong together."""
    half = heads.shape[-1] // 2
    angles = np.arange(heads.shape[1])[:, None] * ROPE_BASE ** (-np.arange(half) / half)
    heads = _scaled(heads, weight)
    first, second = heads[..., :half], heads[..., half:]
    turned = first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)
    return np.concatenate(turned, -1)


def _attention(queries: States, keys: States, values: States, mask: States) -> States:
    queries, keys, values = map(_heads, (queries, keys, values))
    weights = np.exp(queries @ keys.transpose(0, 2, 1) / (WIDTH // HEADS) ** 0.5 + mask)
    mixed = weights / weights.sum(-1, keepdims=True) @ values
    return mixed.transpose(1, 0, 2).reshape(-1, WIDTH)


def _gelu(states: States) -> States:
    return 0.5 * states * (1 + np.tanh((2 / np.pi) ** 0.5 * (states + 0.044715 * states**3)))
