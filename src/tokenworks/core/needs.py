"""What it takes to answer a request."""

from collections.abc import Iterator

from tokenworks.core.messages import Image
from tokenworks.core.request import Conversation, Embeddings, Request, Rerank


def needed(request: Request) -> Iterator[str]:
    """Capabilities, by the names that models and upstreams state them."""
    task = request.task
    if isinstance(task, Embeddings):
        yield "embeddings"
    elif isinstance(task, Rerank):
        yield "rerank"
    elif isinstance(task, Conversation):
        if task.tools:
            yield "tools"
        if any(isinstance(part, Image) for message in task.messages for part in message.parts):
            yield "vision"
    if request.response_format is not None:
        yield "json_schema"
    if request.reasoning is not None:
        yield "reasoning"
