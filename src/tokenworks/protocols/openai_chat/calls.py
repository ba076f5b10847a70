"""Parts of tool calls in a stream: which call each is a part of, however the host counts them."""

from dataclasses import dataclass, field

from tokenworks.protocols.openai_chat import types as wire


@dataclass(slots=True)
class _Calls:
    """Of one choice. `places` are the host's numbers, of which a later call may take an earlier one's."""

    ids: list[str] = field(default_factory=list)
    places: dict[int | None, int] = field(default_factory=dict)


class Numbers:
    """Calls of each choice, numbered from 0 as they begin. Some hosts count otherwise, leave `index` out, or give it 0
    in every call; some repeat a call's id and name in each of its parts."""

    def __init__(self) -> None:
        self._choices: dict[int, _Calls] = {}

    def of(self, choice: int, part: wire.ToolCallDelta) -> tuple[int, bool]:
        """(the call's number, whether it begins with this part)"""
        calls = self._choices.get(choice)
        if calls is None:
            calls = self._choices[choice] = _Calls()
        number = calls.places.get(part.index)
        if number is not None and not _begins_another(part, calls.ids[number]):
            return number, False
        if part.index is None and part.id in calls.ids:
            return calls.ids.index(part.id), False
        number = calls.places[part.index] = len(calls.ids)
        calls.ids.append(part.id or "")
        return number, True


def _begins_another(part: wire.ToolCallDelta, id: str) -> bool:
    """Than the one that has this id. Only a call's first part has to have a name."""
    named = part.function is not None and bool(part.function.name)
    if part.id:
        return named and part.id != id
    return named and part.index is None
