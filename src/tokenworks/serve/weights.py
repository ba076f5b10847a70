"""Weights in place before anything starts: a progress bar now instead of a worker that is silent for minutes."""

from collections.abc import Iterable
from pathlib import Path

from tokenworks.config.records import ModelConfig
from tokenworks.models import Catalog, fetch
from tokenworks.models.progress_bar import progress_bar


def download(models: Iterable[ModelConfig], catalog: Catalog, cache_dir: Path) -> None:
    """WeightsError when one cannot be had. What is here already costs a look-up."""
    for model in models:
        if model.weights:
            with progress_bar(f"weights of {model.name}") as progress:
                for file in catalog.resolve(model.weights, name=model.name).files:
                    fetch(file, cache_dir, progress)
