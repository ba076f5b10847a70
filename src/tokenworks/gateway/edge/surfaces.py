"""Which path speaks which protocol. Paths that only answer GET, and prefixes, are the composition root's (app.py)."""

EMBEDDINGS = "/v1/embeddings"
_OPENAI = {
    "/v1/chat/completions": "openai_chat",
    "/v1/completions": "openai_completions",
    "/v1/responses": "openai_responses",
    EMBEDDINGS: "openai_embeddings",
    "/v1/rerank": "rerank",
}
_ANTHROPIC = {"/v1/messages": "anthropic_messages"}
_TGI = {
    "/": "tgi",
    "/generate": "tgi_generate",
    "/generate_stream": "tgi_generate_stream",
    "/embed": "tgi_embed",
}
_DIALECTS = {
    "/openai/v1/chat/completions": "groq_chat",
    "/inference/v1/chat/completions": "fireworks_chat",
    "/inference/v1/completions": "fireworks_completions",
}

SURFACES = {**_OPENAI, **_ANTHROPIC, "/rerank": "rerank", "/v2/rerank": "rerank", **_TGI, **_DIALECTS}
"""A POST to the path -> the protocol or dialect served there."""

ALIASES = ("/openai", "/inference")
"""Under each of them everything of `/v1/` is served as well: the prefixes that Groq's and Fireworks' clients use."""


def alias(path: str) -> str:
    """The alias that a path begins with, to be taken off; empty when there is none."""
    return next((name for name in ALIASES if path.startswith(f"{name}/v1/")), "")
