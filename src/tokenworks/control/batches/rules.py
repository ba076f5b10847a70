"""What a batch may be: limits, endpoints, and what is wrong with a line. Pure."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any

import msgspec

from tokenworks.batches.records import LARGEST_LINE
from tokenworks.control.batches.splitting import Line
from tokenworks.core.request_ids import first

BATCH, MESSAGE_BATCH = "batch", "message_batch"
"""The two families of batches, by the `object` or `type` that their clients see."""

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MESSAGES = "/v1/messages"
WINDOW = "24h"
WINDOW_SECONDS = 24 * 3600
MOST_LINES = {BATCH: 50_000, MESSAGE_BATCH: 100_000}
MOST_BYTES = {BATCH: 200 * 1024 * 1024, MESSAGE_BATCH: 256 * 1024 * 1024}
LONGEST_CUSTOM_ID = 512
MOST_ERRORS = 100
"""Of one batch; the rest are counted."""

_PATH = re.compile(r"- at `\$\.([^`]+)`")
_MISSING = re.compile(r"required field `(\w+)`")


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None


class _Line(msgspec.Struct):
    """Some hosts' lines have no method and no url: there is one that they can mean."""

    custom_id: str
    body: _Body
    method: str = "POST"
    url: str | None = None


_DECODE = msgspec.json.Decoder(_Line).decode


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(slots=True)
class Checker:
    """Looks at line after line of one input. `models` None: any model, for it is found out when the line runs."""

    object: str
    endpoint: str
    models: Collection[str] | None
    errors: list[dict[str, Any]] = field(default_factory=list)
    wrong: int = 0
    count: int = 0
    seen_models: set[str] = field(default_factory=set)
    _ids: set[bytes] = field(default_factory=set)

    def check(self, line: Line) -> str | None:
        """The line's custom_id; None, and an error more, when the line cannot be run."""
        self.count += 1
        try:
            return self._check(_decode(line))
        except _Wrong as wrong:
            self.wrong += 1
            if len(self.errors) < MOST_ERRORS:
                self._add(line.number, wrong.code, wrong.message, wrong.param)
            return None

    def finish(self) -> bool:
        """Whether the batch may run."""
        if not self.count:
            self._add(None, "empty_file", "The input file has no requests.", "input_file_id")
        if self.wrong > len(self.errors):
            more = self.wrong - len(self.errors)
            self.errors.append({"code": "more_errors", "message": f"{more} more lines are wrong.", **_NOWHERE})
        return not self.errors

    def _check(self, found: _Line) -> str:
        if self.count > MOST_LINES[self.object]:
            raise _Wrong("too_many_requests", f"A batch has at most {MOST_LINES[self.object]} requests.")
        if not 0 < len(found.custom_id) <= LONGEST_CUSTOM_ID:
            message = f"custom_id must have 1 to {LONGEST_CUSTOM_ID} characters."
            raise _Wrong("invalid_custom_id", message, "custom_id")
        if found.method != "POST":
            raise _Wrong("invalid_method", f"method is {found.method!r}, not 'POST'.", "method")
        if found.url not in (None, self.endpoint):
            raise _Wrong("invalid_url", f"url is {found.url!r}, but this batch is for {self.endpoint}.", "url")
        if found.body.stream:
            raise _Wrong("invalid_request", "Answers in a batch are not streamed.", "body.stream")
        if self.models is not None and found.body.model not in self.models:
            message = f"The model {found.body.model!r} does not exist, or the key may not use it."
            raise _Wrong("model_not_found", message, "body.model")
        # 128 bits of each id: what a batch of any size needs to know of those before.
        digest = blake2b(found.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._ids:
            raise _Wrong("duplicate_custom_id", f"{found.custom_id!r} is used before.", "custom_id")
        self._ids.add(digest)
        self.seen_models.add(found.body.model)
        return found.custom_id

    def _add(self, line: int | None, code: str, message: str, param: str | None) -> None:
        self.errors.append({"code": code, "message": message, "param": param, "line": line})


_NOWHERE: dict[str, Any] = {"param": None, "line": None}


def _decode(line: Line) -> _Line:
    if line.text is None:
        raise _Wrong("line_too_large", f"The line is longer than {LARGEST_LINE} bytes.")
    try:
        return _DECODE(line.text)
    except msgspec.ValidationError as error:
        message = str(error).partition(" - at ")[0]
        path, missing = _PATH.search(str(error)), _MISSING.search(message)
        param = ".".join(found[1] for found in (path, missing) if found) or None
        raise _Wrong("invalid_request", f"{message}.", param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Wrong("invalid_json_line", f"This line is not parseable as valid JSON: {error}.") from error


def request_id(batch_id: str, created_ns: int, number: int) -> str:
    """The same in every run of the line, in the form of the gateway's own, dated when the batch was made."""
    return first(created_ns // 1_000_000_000) + sha256(f"{batch_id}/{number}".encode()).hexdigest()[:16]
