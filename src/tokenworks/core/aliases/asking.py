"""A request as aliases see it."""

from tokenworks.core.aliases.records import Facts
from tokenworks.core.caller import Caller
from tokenworks.core.messages import Role, Text
from tokenworks.core.needs import needed
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.core.usage import BYTES_PER_TOKEN

MESSAGES, OPENING = 4, 500
"""So many messages at the most, so many parts of each and characters of those, tell one conversation from another."""


def facts(request: Request, caller: Caller, now: float) -> Facts:
    needs = frozenset(needed(request))
    metadata = request.metadata
    if request.labels:
        metadata = {**metadata, **request.labels}
    if request.user and "user_id" not in metadata:
        metadata = {**metadata, "user_id": request.user}
    return Facts(
        key_id=caller.key_id,
        project_id=caller.project_id,
        organization_id=caller.organization_id,
        user=request.user or "",
        session=request.session or metadata.get("session_id") or opening(request),
        request_id=request.id,
        protocol=request.protocol,
        needs=needs | {"stream"} if request.stream else needs,
        prompt_tokens=len(request.body) // BYTES_PER_TOKEN,
        metadata=metadata,
        now=now,
    )


def opening(request: Request) -> str:
    """How a conversation begins: with its instructions and its user's first words. They stay while it grows."""
    task, texts = request.task, []
    if isinstance(task, Conversation):
        for message in task.messages[:MESSAGES]:
            texts += [part.text[:OPENING] for part in message.parts[:MESSAGES] if isinstance(part, Text)]
            if message.role is Role.USER:
                break
    elif isinstance(task, Prompts):
        texts = [prompt[:OPENING] for prompt in task.prompts[:1] if isinstance(prompt, str)]
    return "\n".join(texts)
