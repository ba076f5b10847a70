"""`litellm` as a client, in each of the ways that it speaks to hosts, run by test_legacy.py: URL KEY."""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

litellm.suppress_debug_info = True
litellm.telemetry = False
url, key = sys.argv[1:]
HOSTS = {
    "openai": f"{url}/v1",
    "hosted_vllm": f"{url}/v1",
    "groq": f"{url}/openai/v1",
    "together_ai": f"{url}/v1",
    "fireworks_ai": f"{url}/inference/v1",
    "huggingface": f"{url}/v1/chat/completions",
}
ASK = [{"role": "user", "content": "one two three"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]


def ask(host: str, **options: Any) -> Any:
    return litellm.completion(
        model=f"{host}/echo", api_base=HOSTS[host], api_key=key, messages=ASK, num_retries=0, timeout=60, **options
    )


for host in HOSTS:
    whole = ask(host)
    assert whole.choices[0].message.content == "one two three", (host, whole)
    assert whole.usage.completion_tokens == 3, (host, whole)
    chunks = list(ask(host, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three", (host, chunks)
    assert any(getattr(chunk, "usage", None) for chunk in chunks), (host, chunks)
    forced = ask(host, tools=TOOLS, tool_choice="required", allowed_openai_params=["tools", "tool_choice"])
    [call] = forced.choices[0].message.tool_calls
    assert "city" in json.loads(call.function.arguments), (host, call)
    try:
        litellm.completion(model=f"{host}/nothing", api_base=HOSTS[host], api_key=key, messages=ASK, num_retries=0)
    except (litellm.NotFoundError, litellm.APIError) as refused:  # its Hugging Face host knows no 404
        assert "does not exist" in str(refused)
    else:
        raise AssertionError(f"{host} found nothing")

# It speaks the older version of messages, with the key in a header of its own and a maximum that no model of ours has.
messages = {"model": "anthropic/echo", "api_base": url, "api_key": key, "messages": ASK, "num_retries": 0}
whole = litellm.completion(**messages)
assert whole.choices[0].message.content == "one two three", whole
chunks = list(litellm.completion(**messages, stream=True))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three", chunks
[call] = litellm.completion(**messages, tools=TOOLS, tool_choice="required").choices[0].message.tool_calls
assert "city" in json.loads(call.function.arguments), call

vectors = litellm.embedding(model="openai/echo", api_base=HOSTS["openai"], api_key=key, input=["a", "b"])
assert len(vectors.data) == 2
ranked = litellm.rerank(
    model="hosted_vllm/echo", api_base=url, api_key=key, query="capital", documents=["a dog", "capital"], top_n=1
)
assert [result["index"] for result in ranked.results] == [1], ranked
