"""Answers given again to the same request of the same project, where its operator and its caller want that."""
