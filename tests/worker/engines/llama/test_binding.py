"""The declarations agree with the library that is installed, and a disagreement is told."""

from importlib import metadata
from typing import Any

import pytest

from tokenworks.worker.engines.llama import binding


def test_the_wheel_is_the_one_that_is_declared() -> None:
    assert metadata.version("xllamacpp") == binding.PINNED
    assert binding.library() is binding.library()


def test_sizes_are_those_of_the_header() -> None:
    assert binding.ffi.sizeof("struct llama_model_params") == 80
    assert binding.ffi.sizeof("struct llama_context_params") == 168
    assert binding.ffi.sizeof("struct llama_batch") == 56


def test_another_layout_is_refused_by_the_name_of_the_field() -> None:
    class Shifted:
        def llama_model_default_params(self) -> Any:
            return binding.library().llama_model_default_params()

        def llama_context_default_params(self) -> Any:
            params = binding.library().llama_context_default_params()
            params.type_k = 7
            return params

    with pytest.raises(binding.BindingError, match=rf"llama_context_params differs: type_k .* {binding.PINNED}"):
        binding.verify(Shifted())


def test_another_version_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding.metadata, "version", lambda _: "2027.1.1")
    with pytest.raises(binding.BindingError, match=r"pip install xllamacpp==2026\.10\.11549"):
        binding.library.__wrapped__()


def test_a_missing_wheel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding.util, "find_spec", lambda _: None)
    with pytest.raises(binding.BindingError, match="xllamacpp is not installed"):
        binding.shared_object()
