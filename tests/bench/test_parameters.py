"""docs/parameters.md is what trying gives, nothing is lost, and every parameter of the official clients is in it."""

from importlib import import_module
from typing import Any

import pytest

from tokenworks.bench import parameters
from tokenworks.bench.samples import SURFACES

CLIENTS = {
    "openai_chat": [
        ("openai.types.chat.completion_create_params", "CompletionCreateParams"),
        ("together.types.chat.completion_create_params", "CompletionCreateParams"),
    ],
    "fireworks_chat": [("fireworks.types.chat.completion_create_params", "CompletionCreateParams")],
    "groq_chat": [("groq.types.chat.completion_create_params", "CompletionCreateParams")],
    "openai_responses": [("openai.types.responses.response_create_params", "ResponseCreateParams")],
    "anthropic_messages": [
        ("anthropic.types.message_create_params", "MessageCreateParams"),
        ("fireworks.types.message_create_params", "MessageCreateParams"),
    ],
    "openai_completions": [
        ("openai.types.completion_create_params", "CompletionCreateParams"),
        ("together.types.completion_create_params", "CompletionCreateParams"),
    ],
    "fireworks_completions": [("fireworks.types.completion_create_params", "CompletionCreateParams")],
    "openai_embeddings": [
        ("openai.types.embedding_create_params", "EmbeddingCreateParams"),
        ("groq.types.embedding_create_params", "EmbeddingCreateParams"),
    ],
    "rerank": [("together.types.rerank_create_params", "RerankCreateParams")],
}


def names(module: str, prefix: str) -> set[str]:
    """The parameters of a client's call, by its own types."""
    found: set[str] = set()
    for kind in vars(import_module(module)).values():
        if isinstance(kind, type) and kind.__name__.startswith(prefix):
            found |= {*getattr(kind, "__required_keys__", ()), *getattr(kind, "__optional_keys__", ())}
    assert len(found) > 2
    return found


def test_the_page_is_what_trying_gives() -> None:
    assert parameters.PAGE.read_text() == parameters.page(), "run `make docs`"


@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_is_lost(surface: str) -> None:
    rows = parameters.outcomes(surface, SURFACES[surface])
    assert not {name: row for name, row in rows.items() if parameters.LOST in row.values()}


@pytest.mark.parametrize(
    ("surface", "module", "prefix"), [(name, *client) for name, clients in CLIENTS.items() for client in clients]
)
def test_every_parameter_of_every_client_is_tried(surface: str, module: str, prefix: str) -> None:
    known: Any = SURFACES[surface]
    assert names(module, prefix) <= {*known.parameters, *known.base}
