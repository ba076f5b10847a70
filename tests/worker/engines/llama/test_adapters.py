"""LoRA adapters on the default weights: they come and go while the engine runs; nothing of one is used for another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tokenworks.core.errors import InvalidRequest, NotFound
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama import adapters

WIDTH, RANK = 576, 4
PROMPT = "The capital of France is a city on the river Seine, and"


def write_adapter(path: Path, seed: int, width: int = WIDTH, strength: float = 4.0) -> None:
    """Random, and strong enough to be heard."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", strength)
    for layer in (10, 20):
        name = f"blk.{layer}.attn_q.weight"
        writer.add_tensor(f"{name}.lora_a", rng.normal(size=(RANK, width)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", rng.normal(size=(WIDTH, RANK)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("poet", "clerk")):
        write_adapter(made / f"{name}.gguf", seed)
    return made


@pytest.fixture(scope="module")
def engine(bench: Any, smollm2: Path, folder: Path) -> Iterator[Any]:
    made = type(bench)(smollm2, adapters=str(folder))
    yield made
    made.assert_empty()
    made.close()


def request(model: str, **more: Any) -> dict[str, Any]:
    sampling = wire.Sampling(temperature=0.0, ignore_eos=True)
    return {"model": model, "prompts": (PROMPT,), "max_tokens": 8, "sampling": sampling, "tenant": "t"} | more


def cached(events: list[Any]) -> int:
    return next(int(event.cached_input) for event in events if isinstance(event, wire.Usage))


def test_each_answers_in_its_own_way_alone_and_together(engine: Any, ids_of: Any) -> None:
    names = ("m", "poet", "clerk")
    alone = {name: ids_of(engine.ask(**request(name, tenant=name))) for name in names}
    assert len({tuple(ids) for ids in alone.values()}) == 3
    assert alone["m"] == ids_of(engine.ask(**request("", tenant="nobody")))
    order = [*names, *names, "poet"]
    together = engine.at_once(*[request(name, tenant=f"{name} {n}") for n, name in enumerate(order)])
    assert [ids_of(events) for events in together] == [alone[name] for name in order]
    (started,) = [event for event in together[1] if isinstance(event, wire.Started)]
    assert started.model == "poet"


def test_what_is_kept_belongs_to_one_adapter(engine: Any) -> None:
    assert cached(engine.ask(**request("poet", tenant="c"))) == 0
    assert cached(engine.ask(**request("poet", tenant="c"))) > 5
    assert cached(engine.ask(**request("clerk", tenant="c"))) == 0
    assert cached(engine.ask(**request("m", tenant="c"))) == 0


def test_files_come_go_and_change_while_it_runs(
    engine: Any, folder: Path, ids_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="no adapter 'late'"):
        engine.ask(**request("late"))
    write_adapter(folder / "late.gguf", 5)
    first = ids_of(engine.ask(**request("late")))
    write_adapter(folder / "other.gguf", 6)
    (folder / "other.gguf").replace(folder / "late.gguf")
    assert ids_of(engine.ask(**request("late"))) != first, "neither its weights nor what was kept of the old one"
    (folder / "late.gguf").unlink()
    with pytest.raises(NotFound, match="no adapter 'late'"):
        engine.ask(**request("late"))
    monkeypatch.setattr(adapters, "MOST", 1)
    write_adapter(folder / "last.gguf", 7)
    engine.ask(**request("last"))
    loaded = engine.generator._adapters._loaded
    assert [key.partition("@")[0] for key in loaded] == ["last"]
    engine.do(lambda: None)
    assert list(engine.generator.runner.kernel.adapters) == list(loaded), "the others are freed"


@pytest.mark.parametrize("name", ["../poet", "..", "none", "poet.gguf", "a/b"])
def test_names_lead_nowhere_else(engine: Any, name: str) -> None:
    with pytest.raises(NotFound) as refused:
        engine.ask(**request(name))
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_one_of_other_weights_is_refused(engine: Any, folder: Path) -> None:
    write_adapter(folder / "wide.gguf", 1, width=64)
    with pytest.raises(InvalidRequest, match="'wide' is not one of these weights"):
        engine.ask(**request("wide"))
    (folder / "torn.gguf").write_bytes((folder / "poet.gguf").read_bytes()[:2000])
    with pytest.raises(InvalidRequest, match="'torn' is not one of these weights"):
        engine.ask(**request("torn"))
