"""What it takes to answer a request."""

from collections.abc import Collection, Iterator

from tokenworks.core.messages import Image
from tokenworks.core.request import Conversation, Embeddings, Request, Rerank

OF_TASKS: dict[type, str] = {Embeddings: "embeddings", Rerank: "rerank"}
REFUSED = {
    "embeddings": ("make embeddings", "model"),
    "rerank": ("rank documents", "model"),
    "tools": ("call tools", "tools"),
    "vision": ("read images", "messages"),
    "json_schema": ("follow a JSON schema", "response_format"),
}
"""What a model without the capability cannot do, and the parameter that asks for it. Reasoning can be left out."""


def only_measures(capabilities: Collection[str]) -> str | None:
    """Of a model that writes nothing: what it does. None for one that writes, or of which nothing is known."""
    measures = [each for each in OF_TASKS.values() if each in capabilities]
    return measures[0] if measures and len(measures) == len(set(capabilities)) else None


def task_of(capabilities: Collection[str]) -> type:
    """What such a model is asked with, to see that it answers."""
    does = only_measures(capabilities)
    return next((task for task, capability in OF_TASKS.items() if capability == does), Conversation)


def needed(request: Request) -> Iterator[str]:
    """Capabilities, by the names that models and upstreams state them."""
    task = request.task
    if (of_task := OF_TASKS.get(type(task))) is not None:
        yield of_task
    if isinstance(task, Conversation):
        if task.tools:
            yield "tools"
        if any(isinstance(part, Image) for message in task.messages for part in message.parts):
            yield "vision"
    if request.response_format is not None:
        yield "json_schema"
    if request.reasoning is not None:
        yield "reasoning"
