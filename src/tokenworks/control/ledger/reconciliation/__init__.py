"""What providers say they will bill us for, beside what our own usage says: where both differ, and which requests may
be why."""
