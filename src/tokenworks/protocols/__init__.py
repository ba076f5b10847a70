"""Wire protocols, chosen by name. One folder each: types, requests, responses, stream, errors.

A codec is pure and goes both ways: to serve a protocol and to call an upstream that speaks it. Adding one is
adding a folder and a row here. A dialect is a protocol's other face towards callers: served, never called.
"""

from importlib import import_module

from tokenworks.protocols.base import Codec

PROTOCOLS = {
    "anthropic_messages": "tokenworks.protocols.anthropic_messages.codec:CODEC",
    "bedrock_converse": "tokenworks.protocols.bedrock_converse.codec:CODEC",
    "cohere": "tokenworks.protocols.cohere.codec:CODEC",
    "openai_chat": "tokenworks.protocols.openai_chat.codec:CODEC",
    "openai_completions": "tokenworks.protocols.openai_completions.codec:CODEC",
    "openai_embeddings": "tokenworks.protocols.openai_embeddings.codec:CODEC",
    "rerank": "tokenworks.protocols.rerank.codec:CODEC",
    "openai_responses": "tokenworks.protocols.openai_responses.codec:CODEC",
    "tgi": "tokenworks.protocols.tgi.codec:CODEC",
    "replicate": "tokenworks.protocols.replicate.codec:CODEC",
    "worker": "tokenworks.protocols.worker.codec:CODEC",
}

DIALECTS = {
    "fireworks_chat": "tokenworks.protocols.fireworks.codec:CHAT",
    "fireworks_completions": "tokenworks.protocols.fireworks.codec:COMPLETIONS",
    "groq_chat": "tokenworks.protocols.groq.codec:CODEC",
    "tgi_generate": "tokenworks.protocols.tgi.codec:GENERATE",
    "tgi_generate_stream": "tokenworks.protocols.tgi.codec:GENERATE_STREAM",
    "tgi_chat": "tokenworks.protocols.tgi.chat:CODEC",
    "tgi_embed": "tokenworks.protocols.tgi.embed:CODEC",
}


USUAL = "openai_chat"
"""What is meant where nobody says."""


def codec(name: str) -> Codec:
    """The codec of a protocol or of a dialect. ValueError with the known names for any other."""
    try:
        module, _, attribute = (PROTOCOLS.get(name) or DIALECTS[name]).partition(":")
    except KeyError:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(sorted(PROTOCOLS))}") from None
    found: Codec = getattr(import_module(module), attribute)
    return found
