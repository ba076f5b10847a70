"""What the headers of a request say: the version of the protocol, and the previews that the caller wants."""

from collections.abc import Iterator, Mapping

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Role
from tokenworks.core.request import Conversation, Request
from tokenworks.protocols.anthropic_messages.blocks import NAME
from tokenworks.protocols.anthropic_messages.requests import OBJECTS
from tokenworks.protocols.validation import present, top_level

VERSION_HEADER = "anthropic-version"
BETA_HEADER = "anthropic-beta"
CALLED_VERSION = "2023-06-01"
"""What upstreams are called with: every host of this protocol knows it."""
LATER_VERSION = "2026-10-21"


def read_headers(request: Request, headers: Mapping[str, str]) -> None:
    """InvalidRequest for a version that does not exist, or for what the caller's version no longer takes."""
    version = headers.get(VERSION_HEADER, CALLED_VERSION)
    if version not in (CALLED_VERSION, LATER_VERSION):
        raise InvalidRequest(
            f"'{VERSION_HEADER}: {version}' is not known; send {CALLED_VERSION} or {LATER_VERSION}.",
            param=VERSION_HEADER,
        )
    if version == LATER_VERSION:
        for param, problem in _refused(request):
            raise InvalidRequest(f"{problem} in version {LATER_VERSION} of this protocol.", param=param)
    if beta := headers.get(BETA_HEADER):
        request.options["beta"] = beta


def credential_headers(credential: str) -> dict[str, str]:
    return {"x-api-key": credential}


def upstream_headers(request: Request) -> dict[str, str]:
    beta = request.options.get("beta") if request.protocol == NAME else None
    return {VERSION_HEADER: CALLED_VERSION, **({BETA_HEADER: beta} if beta else {})}


def _refused(request: Request) -> Iterator[tuple[str, str]]:
    for name in ("temperature", "top_p", "top_k"):
        if getattr(request.sampling, name) is not None:
            yield name, f"'{name}' cannot be set"
    for message in request.task.messages if isinstance(request.task, Conversation) else ():
        if message.role is Role.ASSISTANT and any(
            isinstance(p, Foreign) and p.type == "document" for p in message.parts
        ):
            yield "messages", "An assistant's message cannot hold a document directly"
    if b'"citations"' in request.body and _cites(request.body):
        yield "messages", "A user's text cannot carry 'citations'"


def _cites(body: bytes) -> bool:
    messages = OBJECTS.decode(top_level(body)["messages"])
    contents = [bytes(message["content"]) for message in messages if bytes(message["role"]) == b'"user"']
    blocks = [block for content in contents if content.startswith(b"[") for block in OBJECTS.decode(content)]
    return any(
        bytes(block["type"]) == b'"text"' and present(block.get("citations", msgspec.Raw(b"null"))) for block in blocks
    )
