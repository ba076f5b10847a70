"""The worker protocol, version 1: how the gateway calls engines of ours. See docs/worker-protocol.md.

A contract between two planes that never import each other: both import this.
"""
