"""`text-generation` 0.7, run by test_legacy.py in the old environment: URL KEY."""

import asyncio
import json
import sys

from text_generation import AsyncClient, Client
from text_generation.errors import NotFoundError, ValidationError
from text_generation.types import Grammar, GrammarType, Message

url, key = sys.argv[1:]
client = Client(url, headers={"authorization": f"Bearer {key}"}, timeout=60)

answer = client.generate("one two three four", max_new_tokens=3)
assert answer.generated_text == "one two three", answer
assert answer.details is not None
assert answer.details.generated_tokens == 3
assert answer.details.finish_reason == "length"

*tokens, last = client.generate_stream("one two three", max_new_tokens=10)
assert "".join(each.token.text for each in [*tokens, last]) == last.generated_text == "one two three"

schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
held = client.generate("one", max_new_tokens=50, grammar=Grammar(type=GrammarType.Json, value=schema))
assert isinstance(json.loads(held.generated_text)["a"], int)

ask = [Message(role="user", content="one two three")]
whole = client.chat(messages=ask)
assert whole.choices[0].message.content == "one two three", whole
assert whole.usage["completion_tokens"] == 3
chunks = list(client.chat(messages=ask, stream=True))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
assert chunks[-1].choices[0].finish_reason == "stop"
tools = [{"type": "function", "function": {"name": "look", "description": "", "parameters": schema}}]
calls = [c.choices[0].delta.tool_calls for c in client.chat(messages=ask, tools=tools, tool_choice="look", stream=True)]
assert [call for call in calls if call is not None]

for bad, error in ((lambda: client.generate("a", max_new_tokens=0), ValidationError),):
    try:
        bad()
    except error as refused:
        assert str(refused)
    else:
        raise AssertionError(error)
try:
    Client(f"{url}/nowhere", headers={"authorization": f"Bearer {key}"}).generate("a")
except NotFoundError:
    pass
else:
    raise AssertionError("there is nothing there")


async def asynchronously() -> None:
    client = AsyncClient(url, headers={"authorization": f"Bearer {key}"}, timeout=60)
    assert (await client.generate("one two", max_new_tokens=5)).generated_text == "one two"
    texts = [each.token.text async for each in client.generate_stream("one two", max_new_tokens=5)]
    assert "".join(texts) == "one two"
    chunks = [chunk async for chunk in await client.chat(messages=ask, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"


asyncio.run(asynchronously())
