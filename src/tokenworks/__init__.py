"""Tokenworks: the software one installs to be an inference provider."""

__version__ = "0.1.0"
