"""A GGUF file's matrices in another format; everything else in it stays.

The gguf package has the arithmetic (numpy). Embedding and output matrix keep at least 8 bits: coarse ones hurt most.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from tokenworks.models.progress import Progress

FORMATS = {
    "Q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "Q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""Those that llama.cpp lays out anew for the processor when it loads them, and that the package can write."""
CAREFUL = ("token_embd.weight", "output.weight")
KEPT = ("_norm.weight", "ffn_gate_inp.weight")
"""Small, and read for every token."""
WRITTEN_ANEW = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment")


class CannotRequantize(Exception):
    """The message says what is in the way."""


def requantize(source: Path, target: Path, name: str, progress: Progress) -> None:
    """Writes `target`; needs the memory of one matrix in 32 bits. `progress` counts bytes of `source`.

    CannotRequantize when the package cannot read what `source` holds. OSError for what the disk says.
    """
    wanted, file_type = FORMATS[name]
    reader = _opened(source)
    architecture = reader.get_field("general.architecture")
    writer = gguf.GGUFWriter(target, str(architecture.contents()) if architecture else "")
    try:
        _copy_metadata(reader, writer)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        kinds = [_kind(tensor, wanted) for tensor in reader.tensors]
        for tensor, kind in zip(reader.tensors, kinds, strict=True):
            block, size = gguf.GGML_QUANT_SIZES[kind]
            shape = [int(length) for length in reversed(tensor.shape)]
            count = int(tensor.n_elements) // block * size
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), count, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, total = 0, sum(int(tensor.n_bytes) for tensor in reader.tensors)
        progress(done, total)
        for tensor, kind in zip(reader.tensors, kinds, strict=True):
            writer.write_tensor_data(_converted(tensor, kind))
            done += int(tensor.n_bytes)
            progress(done, total)
    finally:
        writer.close()


def format_of(path: Path) -> str:
    """What most of the weights are in: "Q4_1"."""
    counts: dict[str, int] = {}
    for tensor in _opened(path).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    if not counts:
        raise CannotRequantize(f"{path} holds no weights")
    return max(counts, key=lambda name: counts[name])


def _opened(path: Path) -> Any:
    try:
        return gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError) as error:
        raise CannotRequantize(f"{path} cannot be read as GGUF: {error}") from error


def _copy_metadata(reader: Any, writer: Any) -> None:
    for field in reader.fields.values():
        if field.name in WRITTEN_ANEW or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def _kind(tensor: Any, wanted: Type) -> Type:
    """The format that a tensor gets."""
    stays: Type = tensor.tensor_type
    matrix = len(tensor.shape) >= 2 and tensor.name.endswith("weight") and not tensor.name.endswith(KEPT)
    if not matrix or (stays == Type.F32 and tensor.n_elements < 1 << 16):
        return stays
    if tensor.name in CAREFUL:
        wanted = Type.Q8_0
    fits = int(tensor.shape[0]) % gguf.GGML_QUANT_SIZES[wanted][0] == 0
    return wanted if fits else stays


def _converted(tensor: Any, kind: Type) -> Any:
    if kind == tensor.tensor_type:
        return tensor.data
    try:
        return gguf.quants.quantize(gguf.quants.dequantize(tensor.data, tensor.tensor_type), kind)
    except NotImplementedError as error:
        raise CannotRequantize(
            f"{tensor.name} is {tensor.tensor_type.name}, which the gguf package cannot read"
        ) from error
