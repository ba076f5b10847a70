"""Functions whose arguments match their schema although nobody demands the call (`strict`): the model writes as it
likes until it calls one of them, and from there only what the schema allows, until the arguments are whole."""

from collections.abc import Callable, Mapping, Sequence

from tokenworks.core.events import ToolCallDelta
from tokenworks.worker.chat.reader import Delta
from tokenworks.worker.engines.llama.grammar import Constraint


class Strict:
    """For one choice. `constraints`: of the arguments, by the function's name. `tokenize` spells a text."""

    def __init__(self, constraints: Mapping[str, Constraint], tokenize: Callable[[str], Sequence[int]]) -> None:
        self._constraints = constraints
        self._tokenize = tokenize

    def begun(self, deltas: Sequence[Delta], held: str) -> Constraint | None:
        """What the arguments of the call that `deltas` have just begun are held to. `held` was said after them and is
        not told yet. None where there is no such call, and where its beginning came in one token with something that
        the schema does not allow."""
        for at in range(len(deltas) - 1, -1, -1):
            delta = deltas[at]
            if isinstance(delta, ToolCallDelta) and delta.name is not None:
                break
        else:
            return None
        constraint = self._constraints.get(delta.name)
        if constraint is None:
            return None
        constraint = constraint.copy()
        said = "".join(later.arguments for later in deltas[at:] if isinstance(later, ToolCallDelta))
        allowed = all(map(constraint.accepts, self._tokenize(said + held)))
        return constraint if allowed and not constraint.done else None
