"""Images on their way to engines of ours: what they are given is here, whole and of a kind that they read.

An engine's own server would follow any URL from where it stands, and hand whatever comes to its decoders. So the
gateway fetches what callers only name, under the rules of outside.py, and looks at the head of every file.
"""

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp

from tokenworks.core.errors import InvalidRequest, TokenworksError
from tokenworks.core.messages import Foreign, Image, Part, Text, ToolResult
from tokenworks.core.request import Conversation, Request
from tokenworks.gateway.upstreams.pictures import Picture, look
from tokenworks.outside import check_url, connector

MOST_BYTES = 20 * 1024 * 1024
"""Of all that are fetched for a request."""
MOST_PIXELS = 50_000_000
"""A small file may hold a picture that fills the memory."""
MOST_FETCHED = 16
"""Of one request."""
MOST_REDIRECTS = 3
TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=5)
_WHAT = "The image at '{}'"


@dataclass(slots=True)
class _Room:
    """Bytes that may still be fetched for a request."""

    left: int = MOST_BYTES


def images_of(request: Request) -> Iterator[Image]:
    return (part for part in _parts_of(request) if isinstance(part, Image))


def _parts_of(request: Request) -> Iterator[Part]:
    if isinstance(request.task, Conversation):
        for message in request.task.messages:
            for part in message.parts:
                if type(part) is ToolResult:
                    yield from part.content
                elif type(part) is not Text:  # as most are
                    yield part


class Images:
    """`allowed`: hosts that need not be on the public internet."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    async def bring(self, request: Request) -> None:
        """The request's images become data. InvalidRequest names the one that cannot be shown, and why."""
        for part in _parts_of(request):
            if isinstance(part, Foreign):  # a sound or a film, which the engine's server would fetch and decode, too
                raise InvalidRequest(f"The model '{request.model}' does not read '{part.type}'.", param="messages")
        images = list(images_of(request))
        if not images:
            return
        named = [image for image in images if image.url is not None]
        given = [image for image in images if image.url is None]
        if len(named) > MOST_FETCHED:
            raise InvalidRequest(
                f"At most {MOST_FETCHED} images of a request may be named by their URL: send the others themselves.",
                param=named[MOST_FETCHED].where,
            )
        if named:
            async with aiohttp.ClientSession(
                connector=connector(self._allowed),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=TIMEOUT,
                auto_decompress=False,  # little that is packed may become too much before it can be counted
                headers={"accept-encoding": "identity", "accept": "image/*"},
            ) as session:
                room = _Room()
                await asyncio.gather(*[self._fetch(session, image, room) for image in named])
        for image in given:
            await asyncio.to_thread(_check, image)
        request.unusual = True  # its body as it came would name them again

    async def _fetch(self, session: aiohttp.ClientSession, image: Image, room: _Room) -> None:
        try:
            data = await self._read(session, image.url or "", image.where, room)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise _refused(image.where, f"cannot be fetched: {why}") from error
        picture = _seen(image, data)
        image.url, image.data, image.media_type = None, b64encode(data).decode(), picture.media_type

    async def _read(self, session: aiohttp.ClientSession, url: str, where: str, room: _Room) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            check_url(url, self._allowed, what=_WHAT.format(where), param=where)
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, answer.headers.get("location", ""))
                    continue
                if answer.status != 200:
                    raise _refused(where, f"cannot be fetched: its host answered {answer.status}")
                data = bytearray()
                async for chunk in answer.content.iter_any():
                    data += chunk
                    room.left -= len(chunk)
                    if room.left < 0:
                        raise InvalidRequest(
                            f"The images to fetch are larger than {MOST_BYTES // 1024 // 1024} MiB together.",
                            param=where,
                        )
                return bytes(data)
        raise _refused(where, f"cannot be fetched: more than {MOST_REDIRECTS} redirects")


def blame(error: TokenworksError, request: Request) -> None:
    """An engine says that it cannot read an image, not which one: the only one, or one of the messages'."""
    if isinstance(error, InvalidRequest) and error.param is None and "image" in error.message:
        images = list(images_of(request))
        error.param = images[0].where if len(images) == 1 else "messages"


def _check(image: Image) -> None:
    """Of one that came with the request."""
    try:
        data = b64decode(image.data or "", validate=True)
    except (binascii.Error, ValueError):
        raise _refused(image.where, "is not base64") from None
    image.media_type = _seen(image, data).media_type


def _seen(image: Image, data: bytes) -> Picture:
    picture = look(data)
    if picture is None:
        raise _refused(image.where, "is none that this model reads: PNG, JPEG, GIF or BMP, whole")
    if picture.width * picture.height > MOST_PIXELS:
        raise _refused(image.where, f"has {picture.width} x {picture.height} pixels; at most {MOST_PIXELS:,} are read")
    return picture


def _refused(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{_WHAT.format(where)} {why}.", param=where)
