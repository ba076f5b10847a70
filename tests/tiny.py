"""Small real weights of every kind that engines serve, for tests: random but always the same, in milliseconds.

What each must answer is computed from the same arrays by `reference.py`'s forward passes, or told by another engine.
Tensors and keys: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-arch.cpp and tools/mtmd/clip-impl.h.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]

WIDTH, HEADS, HIDDEN, LAYERS = 64, 2, 96, 2
EPSILON = 1e-5
PAD, UNKNOWN, CLASSIFY, SEPARATE = range(4)
"""Of encoders."""
WORDS = ("the", "cat", "dog", "sat", "on", "a", "mat", "capital", "of", "france", "paris", "is")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
CONTROL, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL


def _byte_tokens() -> list[str]:
    """The characters in which byte-level vocabularies write bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 256 + hidden.index(byte)) for byte in range(256)]


LETTERS = (*_byte_tokens(), "<|end|>", "<|begin|>")
"""Of decoders: a token for each byte, and two that are special."""
END, BEGIN = 256, 257
ROPE_BASE = 10000.0
PAIR = "<|begin|>Query: {query}\nDocument: {document}<|end|>"


class Dice:
    """Arrays in the shape [out, in], as files have them."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float = 0.3) -> npt.NDArray[np.float32]:
        return (self._random.standard_normal(shape) * scale).astype(np.float32)

    def near_one(self, size: int) -> npt.NDArray[np.float32]:
        return 1 + self(size, scale=0.1)


def write(path: Path, architecture: str, keys: Mapping[str, Any], arrays: Arrays) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, value in keys.items():
        name = key if "." in key else f"{architecture}.{key.replace('/', '.')}"
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case _:
                writer.add_array(name, value)
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encoder(path: Path, *, pooling: gguf.PoolingType, context: int = 64) -> Arrays:
    """A BERT: reads both ways, and makes vectors, or with `PoolingType.RANK` one score."""
    dice = Dice(1)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁{word}" for word in WORDS)]
    tokens += [f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" if letter != "a"] + list(
        "abcdefghijklmnopqrstuvwxyz"
    )
    arrays: Arrays = {
        "token_embd.weight": dice(len(tokens), WIDTH, scale=1.0),
        "position_embd.weight": dice(context, WIDTH),
        "token_types.weight": dice(2, WIDTH),
        **_norm(dice, "token_embd_norm"),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            arrays |= _linear(dice, f"{block}.{name}", WIDTH, WIDTH)
        arrays |= _norm(dice, f"{block}.attn_output_norm")
        arrays |= _linear(dice, f"{block}.ffn_up", HIDDEN, WIDTH)
        arrays |= _linear(dice, f"{block}.ffn_down", WIDTH, HIDDEN)
        arrays |= _norm(dice, f"{block}.layer_output_norm")
    if pooling is gguf.PoolingType.RANK:
        arrays |= _linear(dice, "cls", WIDTH, WIDTH) | _linear(dice, "cls.output", 1, WIDTH)
    keys = {
        **_sizes(context),
        "attention/layer_norm_epsilon": EPSILON,
        "attention/causal": False,
        "pooling_type": int(pooling),
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(CONTROL)] * 4 + [int(NORMAL)] * (len(tokens) - 4),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": PAD,
        "tokenizer.ggml.unknown_token_id": UNKNOWN,
        "tokenizer.ggml.cls_token_id": CLASSIFY,
        "tokenizer.ggml.bos_token_id": CLASSIFY,
        "tokenizer.ggml.seperator_token_id": SEPARATE,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    write(path, "bert", keys, arrays)
    return arrays


def _sizes(context: int) -> dict[str, Any]:
    return {
        "context_length": context,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "block_count": LAYERS,
        "attention/head_count": HEADS,
    }


def _linear(dice: Dice, name: str, outputs: int, inputs: int) -> Arrays:
    return {f"{name}.weight": dice(outputs, inputs, scale=1.5 / inputs**0.5), f"{name}.bias": dice(outputs, scale=0.1)}


def _norm(dice: Dice, name: str) -> Arrays:
    return {f"{name}.weight": dice.near_one(WIDTH), f"{name}.bias": dice(WIDTH, scale=0.1)}


def decoder(path: Path, *, context: int = 512) -> Arrays:
    """A Llama of bytes: writes, whatever it is asked."""
    dice = Dice(2)
    arrays = _decoder(dice)
    arrays["output.weight"] = dice(len(LETTERS), WIDTH)
    keys = {**_decoder_keys(context), "rope/dimension_count": WIDTH // HEADS, "tokenizer.chat_template": TEMPLATE}
    write(path, "llama", keys, arrays)
    return arrays


def reader(path: Path, *, pooling: gguf.PoolingType, context: int = 256) -> Arrays:
    """A Qwen3 that makes vectors of its last state, or with `PoolingType.RANK` says yes or no to a pair."""
    dice = Dice(4)
    arrays = _decoder(dice)
    for layer in range(LAYERS):
        for name in ("attn_q_norm", "attn_k_norm"):
            arrays[f"blk.{layer}.{name}.weight"] = dice.near_one(WIDTH // HEADS)
    keys = {
        **_decoder_keys(context),
        "attention/head_count_kv": HEADS,
        "attention/key_length": WIDTH // HEADS,
        "attention/value_length": WIDTH // HEADS,
        "pooling_type": int(pooling),
        "tokenizer.ggml.add_eos_token": True,
    }
    if pooling is gguf.PoolingType.RANK:
        arrays["cls.output.weight"] = dice(2, WIDTH)
        keys |= {"classifier/output_labels": ["yes", "no"], "tokenizer.chat_template.rerank": PAIR}
        keys |= {"tokenizer.chat_templates": ["rerank"]}
    write(path, "qwen3", keys, arrays)
    return arrays


def _decoder(dice: Dice) -> Arrays:
    arrays: Arrays = {
        "token_embd.weight": dice(len(LETTERS), WIDTH, scale=1.0),
        "output_norm.weight": dice.near_one(WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        arrays[f"{block}.attn_norm.weight"] = dice.near_one(WIDTH)
        arrays[f"{block}.ffn_norm.weight"] = dice.near_one(WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            arrays[f"{block}.{name}.weight"] = dice(WIDTH, WIDTH, scale=1.5 / WIDTH**0.5)
        for name, shape in (("ffn_gate", (HIDDEN, WIDTH)), ("ffn_up", (HIDDEN, WIDTH)), ("ffn_down", (WIDTH, HIDDEN))):
            arrays[f"{block}.{name}.weight"] = dice(*shape, scale=1.5 / shape[1] ** 0.5)
    return arrays


def _decoder_keys(context: int) -> dict[str, Any]:
    return {
        **_sizes(context),
        "attention/layer_norm_rms_epsilon": EPSILON,
        "rope/freq_base": ROPE_BASE,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(LETTERS),
        "tokenizer.ggml.token_type": [int(NORMAL)] * 256 + [int(CONTROL)] * 2,
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.bos_token_id": BEGIN,
    }


def projector(path: Path) -> Path:
    """Eyes for `decoder`: a CLIP whose picture of 32 x 32 becomes 16 tokens."""
    dice = Dice(3)
    size, patch, channels = 32, 8, 3
    arrays: Arrays = {
        "v.patch_embd.weight": dice(WIDTH, channels, patch, patch),
        "v.class_embd": dice(WIDTH),
        "v.position_embd.weight": dice((size // patch) ** 2 + 1, WIDTH),
        **_norm(dice, "v.pre_ln"),
    }
    for layer in range(LAYERS):
        block = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            arrays |= _linear(dice, f"{block}.{name}", WIDTH, WIDTH)
        arrays |= _norm(dice, f"{block}.ln1") | _norm(dice, f"{block}.ln2")
        arrays |= _linear(dice, f"{block}.ffn_up", HIDDEN, WIDTH) | _linear(dice, f"{block}.ffn_down", WIDTH, HIDDEN)
    arrays |= _linear(dice, "mm.0", WIDTH, WIDTH) | _linear(dice, "mm.2", WIDTH, WIDTH)
    keys = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": size,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": HIDDEN,
        "clip.vision.projection_dim": WIDTH,
        "clip.vision.block_count": LAYERS,
        "clip.vision.attention.head_count": HEADS,
        "clip.vision.attention.layer_norm_epsilon": EPSILON,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    return write(path, "clip", keys, arrays)
