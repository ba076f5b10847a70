"""From options to a running machine: check, lock, download, start, supervise."""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenworks.config import ConfigError, Configuration, load
from tokenworks.config.catalog import known_providers
from tokenworks.core.needs import only_measures
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


def run(given: Mapping[str, Any]) -> int:
    """Serve until told to stop; the exit code. `given`: the command line by option name (None: not given)."""
    begun = time.monotonic()
    terminal = Terminal()
    try:
        config = find_config(given.get("config"), Path.cwd())
        configuration = (
            load(config, protocols=PROTOCOLS, engines=ENGINES, known_providers=known_providers(PROTOCOLS))
            if config
            else Configuration()
        )
        settings = resolve(given, configuration.options, config)
        terminal.verbose = settings.verbose
        settings = replace(settings, port=claim_port(settings.host, settings.port))
        directory = prepare(settings.data_dir)
        with exclusive(directory):
            return _serve(settings, configuration, directory, terminal, begun)
    except (ConfigError, CannotServe, WeightsError) as error:
        terminal.error(str(error))
        return 2
    except KeyboardInterrupt:  # before the supervisor took the signals: while weights were downloaded
        terminal.note("interrupted; a download goes on where it stopped")
        return 130
    finally:
        terminal.close()


def _serve(
    settings: ServeSettings, configuration: Configuration, directory: DataDirectory, terminal: Terminal, begun: float
) -> int:
    try:
        ensure_cluster_key(directory.cluster_key)
    except (OSError, ValueError) as error:
        raise CannotServe(str(error)) from error
    catalog = load_catalog(settings.catalog)
    local = local_models(settings, configuration, catalog)
    download(local, catalog, settings.cache_dir)
    plan = make_plan(settings, configuration, local, directory)
    known = {
        model.name: catalog[model.weights].capabilities for model in local if model.weights and model.weights in catalog
    }
    measures = {name: does for name, able in known.items() if (does := only_measures(able)) is not None}
    url = banner.base_url(settings.host, settings.port)
    terminal.note(f"starting {', '.join(plan.models)} ...")

    def ready() -> None:
        seconds, colour = time.monotonic() - begun, sys.stdout.isatty()
        if settings.json:
            terminal.out(banner.as_json(url, directory.bootstrap, plan.models))
        else:
            terminal.out(
                banner.as_text(url, directory.bootstrap, plan.models, seconds, colour=colour, measures=measures)
            )

    return asyncio.run(Supervisor(plan, url, logs=directory.logs, terminal=terminal, ready=ready).run())
