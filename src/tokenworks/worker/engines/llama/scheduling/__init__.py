"""The scheduler: a pure state machine. It knows sequences, slots and a clock that it is given; it imports no engine."""
