"""Speculation: guesses of what comes next, checked in the forward pass of the last token, where that gains."""
