"""What a request takes along that is sold beside tokens: images and sound, however its protocol says them."""

import io
import json
import wave
from base64 import b64encode
from typing import Any

import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.gateway.metering.counting import sent
from tokenworks.protocols import codec
from tokenworks.protocols.openai_chat import audio

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA = f"data:image/png;base64,{PIXEL}"
LINK = "https://example.com/a.png"


def wav(frames: int, rate: int = 8_000, channels: int = 1) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * channels * frames))
    return made.getvalue()


def mp3(frames: int, *, index: bool = False, tags: bool = False) -> bytes:
    """MPEG-1 layer III, 128 kbit/s at 44.1 kHz: 417 bytes and 1152 samples each."""
    frame = b"\xff\xfb\x90\x00" + bytes(413)
    first = (frame[:36] + b"Xing" + frame[40:]) if index else b""
    before = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) if tags else b""
    return before + first + frame * frames + (b"TAG" + bytes(125) if tags else b"")


def sound(data: bytes, kind: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": kind}}


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


TEXT = {"type": "text", "text": "Look"}
SHOWN = {"type": "image_url", "image_url": {"url": LINK}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": PIXEL}
SEEN = {"type": "image", "source": SOURCE}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [SEEN, SEEN]}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}


@pytest.mark.parametrize(
    "protocol, body, images, audio_ms",
    [
        ("openai_chat", {"messages": user(TEXT)}, 0, 0),
        ("openai_chat", {"messages": user(TEXT, SHOWN, {"type": "image_url", "image_url": {"url": DATA}})}, 2, 0),
        ("openai_chat", {"messages": [*user(SHOWN), {"role": "assistant", "content": "A"}, *user(SHOWN)]}, 2, 0),
        ("openai_chat", {"messages": user(sound(wav(8_000)), sound(wav(4_001)))}, 0, 1_000 + 501),
        ("openai_chat", {"messages": user(SHOWN, sound(mp3(100), "mp3"))}, 1, 2_613),
        ("openai_responses", {"input": user({"type": "input_image", "image_url": DATA})}, 1, 0),
        ("openai_responses", {"input": user({"type": "input_image", "file_id": "file_1"})}, 1, 0),
        ("anthropic_messages", {"max_tokens": 9, "messages": user(SEEN, {"type": "text", "text": "Hm"})}, 1, 0),
        ("anthropic_messages", {"max_tokens": 9, "messages": [*user(SEEN), CALLED, *user(RESULT)]}, 3, 0),
        (
            "anthropic_messages",
            {"max_tokens": 9, "messages": user({"type": "image", "source": {"type": "file", "file_id": "f"}})},
            1,
            0,
        ),
        ("openai_completions", {"prompt": "Look"}, 0, 0),
        ("openai_completions", {"prompt": "Look", "images": [DATA, LINK]}, 2, 0),
        ("openai_completions", {"prompt": ["Look", "See"], "images": [[DATA], [LINK, LINK]]}, 3, 0),
        ("replicate", {"input": {"prompt": "Look", "image": DATA}}, 1, 0),
        ("openai_embeddings", {"input": "Look"}, 0, 0),
    ],
)
def test_what_is_sent(protocol: str, body: dict[str, Any], images: int, audio_ms: int) -> None:
    request = codec(protocol).decode_request(json.dumps({"model": "m", **body}).encode())
    assert sent(request) == (images, audio_ms)


@pytest.mark.parametrize(
    "data, kind, expected",
    [
        (wav(1), "wav", 1),
        (wav(0), "wav", 0),
        (wav(44_100, 44_100, channels=2), "wav", 1_000),
        (wav(16_000)[:-16_000], "wav", 1_000),  # cut: what is there
        (wav(8_000).replace(b"data\x80\x3e\x00\x00", b"data\xff\xff\xff\xff"), "wav", 1_000),  # written to a pipe
        (wav(8_000).replace(b"fmt ", b"LIST\x03\x00\x00\x00abc\x00fmt ", 1), "wav", 1_000),
        (mp3(1), "mp3", 27),
        (mp3(38), "mp3", 993),
        (mp3(38, index=True, tags=True), "mp3", 993),
        (b"\xff\xf3\x44\xc4" + bytes(140), "mp3", 24),  # MPEG-2, 32 kbit/s at 24 kHz: 576 samples
    ],
)
def test_how_long_it_plays(data: bytes, kind: str, expected: int) -> None:
    assert audio.milliseconds(b64encode(data).decode(), kind, "x") == expected


@pytest.mark.parametrize(
    "data, kind, param",
    [
        ("?", "wav", "data"),
        (b64encode(b"nothing").decode(), "wav", "data"),
        (b64encode(b"RIFF\0\0\0\0WAVE").decode(), "wav", "data"),
        (b64encode(wav(8)[:30]).decode(), "wav", "data"),
        (b64encode(wav(8).replace(b"\x80\x3e\x00\x00", bytes(4))).decode(), "wav", "data"),
        (b64encode(b"\xff" * 100_000).decode(), "mp3", "data"),
        (b64encode(b"").decode(), "mp3", "data"),
        (b64encode(wav(8)).decode(), "flac", "format"),
    ],
)
def test_what_is_no_sound_is_refused_by_name(data: str, kind: str, param: str) -> None:
    part = {"type": "input_audio", "input_audio": {"data": data, "format": kind}}
    body = json.dumps({"model": "m", "messages": user(TEXT, part)}).encode()
    with pytest.raises(InvalidRequest) as refused:
        codec("openai_chat").decode_request(body)
    assert refused.value.param == f"messages[0].content[1].input_audio.{param}"
