"""The gateway's settings: command line over environment over default. The only reader of its environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

PREFIX = "TOKENWORKS_GATEWAY_"


@dataclass(frozen=True, slots=True)
class Settings:
    control: str
    data_dir: Path
    cluster_key_file: Path
    host: str = "127.0.0.1"
    port: int = 8080
    log_level: str = "info"
    durability: Literal["process", "disk"] = "process"
    limits: str = "memory"
    trusted_proxies: str = ""
    limits_timeout: float = 0.5
    limits_wait: float = 2.0
    cache: str = "limits"
    cache_bytes: int = 64 * 1024 * 1024
    body_limit: int = 32 * 1024 * 1024
    header_seconds: float = 10.0
    keep_alive: float = 10.0
    padding: float = 20.0
    drain_seconds: float = 30.0
    batch_concurrency: int = 8
    region: str = ""
    jurisdiction: str = ""
    image_hosts: str = ""


_HELP = {
    "control": "control's address: unix:/path/control.sock or http://host:port",
    "data_dir": "where the journal and the last snapshot are kept",
    "cluster_key_file": "the secret that gateways, control and workers share",
    "host": "address to listen on",
    "port": "port to listen on",
    "log_level": "debug, info, warning or error",
    "durability": "process: usage survives kill -9 before the last byte; disk: also a power cut",
    "limits": "memory: this gateway alone; redis://host:port/0: shared by all gateways",
    "trusted_proxies": "networks in CIDR notation, separated by commas, whose X-Forwarded-For is believed: where the "
    "balancers in front of this gateway are",
    "limits_timeout": "seconds to wait for the server of --limits, after which the failure policy decides",
    "limits_wait": "seconds a request waits for what running ones hold of a limit and may give back; 0: not at all",
    "cache": "where answers of models with a cache are kept: limits: where the limits are; memory: this gateway alone; "
    "redis://host:port/0: shared by all gateways",
    "cache_bytes": "answers kept in memory by one gateway, in bytes; those that were not asked for longest go first",
    "body_limit": "largest request body in bytes",
    "header_seconds": "time a client has to send its headers",
    "keep_alive": "seconds of silence after which a waiting stream gets a comment",
    "padding": "seconds after which a caller of OpenAI's kind who waits for a whole answer gets its headers and white "
    "space, so that its client does not give up; the status is then 200 whatever comes; 0: never",
    "batch_concurrency": "lines of batches run only while fewer requests than this are in flight; 0: none",
    "region": "where this gateway, its journal and its log are; default: where the installation is",
    "jurisdiction": "whose law can reach them: a country's code, or EU",
    "image_hosts": "hosts, separated by commas, whose images are fetched although they are not on the public internet",
    "drain_seconds": "time running requests have to finish at shutdown",
}


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Exits with code 2 and one line for an unknown option, a missing one or a bad value."""
    parser = argparse.ArgumentParser(
        prog="tokenworks gateway",
        description="The data plane: serves callers, calls upstreams, journals what it did.",
        epilog=f"Every option also as {PREFIX}<OPTION> in the environment.",
    )
    for field in fields(Settings):
        default = environment.get(PREFIX + field.name.upper())
        required = default is None and field.name in ("control", "data_dir", "cluster_key_file")
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=_TYPES.get(field.name, str),
            default=default if default is not None or required else field.default,
            required=required,
            choices=("process", "disk") if field.name == "durability" else None,
            help=_HELP[field.name],
        )
    return Settings(**vars(parser.parse_args(arguments)))


_TYPES = {
    "data_dir": Path,
    "cluster_key_file": Path,
    "port": int,
    "limits_timeout": float,
    "limits_wait": float,
    "cache_bytes": int,
    "body_limit": int,
    "header_seconds": float,
    "keep_alive": float,
    "padding": float,
    "drain_seconds": float,
    "batch_concurrency": int,
}
