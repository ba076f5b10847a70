"""The configuration file: TOML -> `Configuration`, or a `ConfigError` that lists everything wrong with it.

Knows what a file may say. Knows no protocol, engine or provider by name (its caller passes those), and resolves no
credentials. docs/configuration.md is the reference.
"""

from tokenworks.config.problems import ConfigError, Problem
from tokenworks.config.reader import load, parse
from tokenworks.config.records import Configuration, ModelConfig, ProviderConfig

__all__ = ["ConfigError", "Configuration", "ModelConfig", "Problem", "ProviderConfig", "load", "parse"]
