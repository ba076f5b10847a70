"""What of a snapshot an alias leads to. Pure."""

from tokenworks.core.aliases import resolving
from tokenworks.core.aliases.reading import Unreadable
from tokenworks.snapshot.records import AliasRecord, ModelRecord
from tokenworks.snapshot.state import State


def as_model(record: AliasRecord, state: State) -> ModelRecord:
    """An alias as a model among others: it can do what each of those can that may answer for it."""
    try:
        names = resolving.models(record.name, state.alias)
    except Unreadable:  # of a newer control
        names = []
    reached = [state.models[name] for name in names if name in state.models]
    lengths = [model.context_length for model in reached if model.context_length]
    outputs = [model.max_output for model in reached if model.max_output]
    able = reached[0].capabilities if reached else ()
    return ModelRecord(
        name=record.name,
        created=record.created,
        targets=(),
        context_length=min(lengths, default=None),
        max_output=min(outputs, default=None),
        capabilities=tuple(each for each in able if all(each in model.capabilities for model in reached)),
    )
