"""Answers that outlive their request: stored and background responses, predictions. Control keeps them."""
