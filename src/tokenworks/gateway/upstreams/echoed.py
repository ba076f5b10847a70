"""`echo` of text completions on an endpoint that does not do it: each choice begins with its prompt."""

from dataclasses import replace

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.events import Event, Finished, TextDelta
from tokenworks.core.request import Prompts, Request


class Echoed:
    def __init__(self, request: Request) -> None:
        """InvalidRequest for what only the endpoint could do: show token ids as text, tell a prompt's probabilities."""
        self._prompts: list[str] = []
        for prompt in request.task.prompts if isinstance(request.task, Prompts) else ():
            if not isinstance(prompt, str) or request.logprobs:
                raise InvalidRequest("This model echoes prompts of text only, and without 'logprobs'.", param="echo")
            self._prompts.append(prompt)
        self._choices = request.n
        self._begun: set[int] = set()

    def rewrite(self, request: Request) -> Request:
        return replace(request, task=Prompts(list(self._prompts)))

    def __call__(self, events: list[Event]) -> list[Event]:
        turned: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta | Finished) and event.index not in self._begun:
                self._begun.add(event.index)
                turned.append(TextDelta(self._prompts[event.index // self._choices], event.index))
            turned.append(event)
        return turned
