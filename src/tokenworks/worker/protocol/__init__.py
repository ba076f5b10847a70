"""The worker protocol, served: raw ASGI around an engine of ours. The records are in tokenworks.protocols.worker."""
