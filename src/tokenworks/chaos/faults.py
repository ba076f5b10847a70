"""Every fault by its name, which is the model's name: `cut-after-5`, `error-500@0.2:7` (two in ten, by seed 7)."""

import hashlib
import re
from dataclasses import dataclass

_NAME = re.compile(r"^(?P<kind>[a-z0-9-]*?)(?:-after-(?P<after>\d+))?(?:@(?P<share>0?\.\d+|1|0)(?::(?P<seed>\d+))?)?$")
HEALTHY = "ok"
DEFAULT_AFTER = 3
GROUP = 3
"""A flapping upstream fails so many requests, then answers so many."""

KINDS = {
    "ok": "nothing is wrong",
    "rate-limited": "429 with Retry-After: 1",
    "rate-limited-bare": "429 without Retry-After",
    "error-500": "500, always",
    "error-500-once": "500 to the first of equal requests",
    "overloaded": "503 with Retry-After: 1",
    "credential": "401: our key is refused",
    "quota": "429 because the account is empty",
    "unknown-model": "404",
    "reset": "the connection is reset before a byte is answered",
    "silence": "the request is taken and never answered",
    "slow-first-token": "only comments, no output",
    "cut": "the connection ends in the middle of the answer",
    "stall": "nothing more in the middle of the answer, the connection stays",
    "garbled": "a piece in the middle is no JSON",
    "missing-terminator": "the stream ends in good order, but without finish and terminator",
    "empty": "200 with an empty body",
    "page": "200 with an HTML page",
    "wrong-usage": "usage with negative and absurd counts",
    "context-length": "400: the prompt is too long",
    "content-filter": "400: the content policy forbids it",
    "prefill-refused": "400 to whoever asks it to go on with an answer; else nothing is wrong",
    "flapping": f"{GROUP} requests fail, {GROUP} are answered, and again",
    "trickle": "a comment for every byte, and output slowly",
    "huge-chunk": "a megabyte in one piece before the answer",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`after`: pieces of output that are right before it. `share` of requests that have it, drawn by `seed`."""

    kind: str
    after: int = DEFAULT_AFTER
    share: float = 1.0
    seed: int = 0

    def hits(self, number: int) -> bool:
        """Whether request `number` (from 0) has it."""
        if self.kind == "flapping":
            return number // GROUP % 2 == 0
        if self.share >= 1.0:
            return True
        drawn = hashlib.sha256(f"{self.kind}:{self.seed}:{number}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") < self.share * 2**64


def read(model: str) -> Fault:
    """ValueError with the known names for a model that is none."""
    match = _NAME.match(model.rpartition("/")[2])
    if match is None or match["kind"] not in KINDS:
        raise ValueError(f"chaos has no fault {model!r}; known: {', '.join(KINDS)}")
    after = int(match["after"]) if match["after"] else DEFAULT_AFTER
    return Fault(match["kind"], after, float(match["share"] or 1), int(match["seed"] or 0))
