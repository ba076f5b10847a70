"""From options to a running machine: check, lock, download, start, supervise."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenworks.config import ConfigError, Configuration, load
from tokenworks.models import WeightsError, load_catalog
from tokenworks.protocols import PROTOCOLS
from tokenworks.serve import banner
from tokenworks.serve.plan import local_models, make_plan
from tokenworks.serve.preflight import CannotServe, DataDirectory, claim_port, exclusive, prepare
from tokenworks.serve.settings import ServeSettings, find_config, resolve
from tokenworks.serve.supervisor import Supervisor
from tokenworks.serve.terminal import Terminal
from tokenworks.serve.weights import download
from tokenworks.snapshot.sealing import ensure_cluster_key
from tokenworks.worker.engines import ENGINES

OWN_VARIABLES = frozenset(
    f"TOKENWORKS_{name}" for name in ("HOST", "PORT", "DATA_DIR", "MODEL", "CONFIG", "JSON", "VERBOSE")
)
"""Settings of `serve` itself; a plane that inherited them would take them for its own."""


def run(given: Mapping[str, Any]) -> int:
    """Serve until told to stop; the exit code. `given`: the command line by field name (None: not given)."""
    begun = time.monotonic()
    terminal = Terminal(verbose=bool(given.get("verbose")))
    try:
        config = find_config(given.get("config"), Path.cwd())
        configuration = load(config, protocols=PROTOCOLS, engines=ENGINES) if config else Configuration()
        settings = resolve(given, configuration.options, config)
        settings = replace(settings, port=claim_port(settings.host, settings.port))
        directory = prepare(settings.data_dir)
        with exclusive(directory):
            return _serve(settings, configuration, directory, terminal, begun)
    except (ConfigError, CannotServe, WeightsError, ValueError) as error:
        terminal.error(str(error))
        return 2
    finally:
        terminal.close()


def _serve(
    settings: ServeSettings, configuration: Configuration, directory: DataDirectory, terminal: Terminal, begun: float
) -> int:
    ensure_cluster_key(directory.cluster_key)
    catalog = load_catalog(settings.catalog)
    local = local_models(settings, configuration, catalog)
    download(local, catalog, settings.cache_dir.expanduser())
    plan = make_plan(settings, configuration, local, directory)
    url = banner.base_url(settings.host, settings.port)
    supervisor = Supervisor(
        plan,
        url,
        environment={name: value for name, value in os.environ.items() if name not in OWN_VARIABLES},
        logs=directory.logs,
        terminal=terminal,
        ready=lambda: terminal.out(
            banner.as_json(url, directory.bootstrap, plan.models)
            if settings.json
            else banner.as_text(
                url, directory.bootstrap, plan.models, time.monotonic() - begun, colour=sys.stdout.isatty()
            )
        ),
    )
    return asyncio.run(supervisor.run())
