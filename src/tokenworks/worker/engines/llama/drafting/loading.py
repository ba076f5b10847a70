"""A draft model from its file, if it is one for these weights."""

from pathlib import Path

from tokenworks.worker.engines.llama.drafting.model import CHUNK, DraftModel
from tokenworks.worker.engines.llama.kernel import Kernel
from tokenworks.worker.engines.llama.model import LoadFailed, Model

PADDING = 128
"""Tokens by which the vocabularies of one family may differ in length: they are padded."""


def load(path: Path, target: Model, kernel: Kernel, gpu_layers: int) -> DraftModel:
    """As many slots as `kernel` has. LoadFailed names what differs; KernelFailed when there is no memory."""
    if kernel.layout is None:
        raise LoadFailed("--option draft: the model's keys and values cannot be cut, so guesses cannot be taken back")
    model = Model(path, gpu_layers=gpu_layers)
    try:
        if (difference := differs(model, target)) is not None:
            raise LoadFailed(
                f"--option draft: {path} has another vocabulary than the model: {difference}. "
                "Guesses need the same tokens: take a smaller model of the same family"
            )
        batch = max(CHUNK, 2 * kernel.slots)
        own = Kernel(model, slots=kernel.slots, capacity=kernel.capacity, batch=batch, threads=kernel.threads)
        if own.layout is None:
            own.close()
            raise LoadFailed(f"--option draft: keys and values of {path} cannot be cut: take another kind of model")
    except BaseException:
        model.close()
        raise
    share = model.size / target.size
    return DraftModel(own, vocabulary=model.tokens, width=target.tokens, share=share, free=model.close)


def differs(draft: Model, target: Model) -> str | None:
    """The first thing in which two vocabularies are not the same."""
    if abs(draft.tokens - target.tokens) > PADDING:
        return f"{draft.tokens} tokens, not {target.tokens}"
    for token, (one, other) in enumerate(zip(draft.pieces, target.pieces, strict=False)):
        if one != other:
            return f"token {token} is {_shown(one)}, not {_shown(other)}"
    if (ends := min(draft.ends ^ target.ends, default=None)) is not None:
        which = "ends" if ends in draft.ends else "does not end"
        return f"token {ends} ({_shown(draft.pieces[ends] if ends < draft.tokens else b'')}) {which} an answer there"
    return None


def _shown(piece: bytes) -> str:
    return repr(piece.decode("utf-8", "replace"))
