import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.config import ConfigError, Configuration, ModelConfig, ProviderConfig, load, parse
from tokenworks.config.records import ModelFacts
from tokenworks.core.money import nano_to_usd
from tokenworks.core.price import STATED
from tokenworks.core.target import Policy, RouteLimits

PROTOCOLS = {"openai_chat", "anthropic"}
ENGINES = {"echo", "llama", "llama_server"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
EXAMPLE = DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]


def read(text: str, **options: Any) -> Configuration:
    return parse(text, file="t.toml", protocols=PROTOCOLS, engines=ENGINES, **options)


def problems(text: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **options)
    return str(caught.value).splitlines()


def test_the_documents_example(tmp_path: Path) -> None:
    path = tmp_path / "tokenworks.toml"
    path.write_text(EXAMPLE)
    configuration = load(path, protocols=PROTOCOLS, engines=ENGINES)
    assert configuration.providers["upstream-a"] == ProviderConfig(
        "upstream-a", ("openai_chat",), "http://127.0.0.1:9100/v1", ("env:UPSTREAM_A_KEY",)
    )
    assert configuration.models["assistant"] == ModelConfig(
        "assistant",
        targets=("upstream-a/model-1", "on-this-machine/org/model-2"),
        limits=RouteLimits(2, 10, 15, 120),
        price={"input": 150_000_000, "cached_input": 75_000_000, "output": 600_000_000},
    )
    assert configuration.models["small/chat"].options == {"context_length": 4096}
    assert configuration.options == {"host": "127.0.0.1", "port": 8080, "data_dir": "data"}


def test_the_document_tells_the_defaults() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[-2].strip() for row in rows}
    for limit in fields(RouteLimits):
        assert float(told[limit.name]) == limit.default


def test_an_empty_file_says_nothing() -> None:
    assert read("") == Configuration()


def test_all_problems_at_once_in_the_order_of_lines() -> None:
    text = """\
[providers.upstream-a]
protocol = "openai_caht"
bas_url = "http://a"

[models.assistant]
targets = [
  "upstream-b/model",
  "no-slash",
]
limits = {connect = -1, idl = 3}
price = {input = 0.0000000001, output = "1"}

[models.nobody]
[serv]
"""
    assert problems(text) == [
        "t.toml:1: providers.upstream-a has no 'base_url'; add it",
        "t.toml:2: providers.upstream-a.protocol 'openai_caht' is unknown; nearest is 'openai_chat'; "
        "valid: anthropic, openai_chat",
        "t.toml:3: unknown key providers.upstream-a.bas_url; nearest is 'base_url'; valid: api_key, "
        "api_keys, auth, base_url, capabilities, costs, jurisdiction, like, models, protocol, quantization, quirks, "
        "region, retention, settings, trains",
        "t.toml:7: target 'upstream-b/model' names an unknown provider; nearest is 'upstream-a'; valid: upstream-a",
        "t.toml:8: models.assistant.targets[1] 'no-slash' is no target; write \"provider/model\"",
        "t.toml:10: unknown key models.assistant.limits.idl; nearest is 'idle'; "
        "valid: connect, first_token, idle, total",
        "t.toml:10: models.assistant.limits.connect -1 seconds is out of range; write a number above 0 and up to 86400",
        "t.toml:11: models.assistant.price.input 0.0000000001 USD is finer than a nano-dollar; "
        "write at most 9 decimal places",
        "t.toml:11: models.assistant.price.output must be a number of USD, not a string; write it without quotes",
        't.toml:13: models.nobody has nobody to answer it; add targets = ["provider/model"] or an engine',
        "t.toml:14: unknown key serv; nearest is 'serve'; "
        "valid: aliases, guardrails, installation, models, providers, serve, sinks",
    ]


PROVIDER = '[providers.a]\nprotocol = "openai_chat"\nbase_url = "http://a"\n'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[models.m]\nengine = "ecko"', 2, "nearest is 'echo'"),
        ('[models.m]\nengine = "echo"\npolicy = {cache = 9, semantic_threshold = 0.9}', 3, "add semantic_model"),
        ('[models.m]\nengine = "echo"\npolicy = {semantic_model = "e"}', 3, "add cache or cache_max"),
        ('[models.m]\nengine = "echo"\npolicy = {semantic_temperature = 3}', 3, "from 0 to 2"),
        (PROVIDER + 'quirks = ["no_echo", "continues_prefil"]', 4, "nearest is 'continues_prefill'; valid: closes_"),
        (PROVIDER + 'quirks = "no_echo"', 4, "array"),
        ("[models.m]\ntargets = []", 2, "non-empty array"),
        (PROVIDER + '[models.m]\nengine = "echo"\ntargets = ["a/b"]', 5, "both targets and an engine"),
        (PROVIDER + '[models.m]\ntargets = ["a/b"]\nweights = "x"', 6, "needs an engine"),
        (PROVIDER + '[models.m]\ntargets = ["a/b"]\nadapter_of = "x"', 6, "both targets and adapter_of"),
        (PROVIDER + '[models.m]\ntargets = ["a/b"]\n[models.n]\nadapter_of = "m"', 7, "'m', which has no engine"),
        ('[models.n]\nadapter_of = "n"', 2, "'n', which has no engine"),
        (PROVIDER + '[models.m]\ntargets = ["a/b", "a/b"]', 5, "twice"),
        (PROVIDER + '[models.m]\ntargets = "a/b"', 5, "array"),
        (PROVIDER + "[models.m]\ntargets = [1979-05-27]", 5, "not a date or time"),
        ('[models.m]\nengine = "echo"\noptions = 3', 3, "must be a table"),
        ('[models.m]\nengine = "echo"\noptions.a.b = nan', 3, "no finite number"),
        ('[models.m]\nengine = "echo"\nlimits = 3', 3, "must be a table"),
        ('[models.m]\nengine = "echo"\nlimits.total = inf', 3, "out of range"),
        ('[models.m]\nengine = "echo"\nlimits.total = 0', 3, "out of range"),
        ('[models.m]\nengine = "echo"\nlimits.total = true', 3, "not a boolean"),
        ('[models.m]\nengine = "echo"\nlimits.total = 1e400', 3, "1e400 seconds is out of range"),
        (
            '[providers.p]\nbase_url = "http://a/v1"\nprotocol = "openai_chat"\ncosts.m = {gpu_second = 1}',
            4,
            "never counted",
        ),
        ('[models.m]\nengine = "echo"\nprice.input = -0.1', 3, "-0.1 USD is out of range"),
        ('[models.m]\nengine = "echo"\nprice.input = 0.12345678901234567890123456789012345678901', 3, "finer"),
        ('[models.m]\nengine = "echo"\nprice.input = 1e-400', 3, "finer"),
        ('[models.m]\nengine = "echo"\nprice.input = 1e-99999999999999999999', 3, "finer"),
        ('[models.m]\nengine = "echo"\nprice.input = nan', 3, "out of range"),
        ('[models.m]\nengine = "echo"\nprice.input = ' + "9" * 400, 3, "out of range"),
        ('[models."a b"]\nengine = "echo"', 1, "is no model name"),
        ("models = 3", 1, "must hold tables"),
        ("models.m = 3", 1, "must be a table"),
        ("[providers]\na = 3", 2, "must be a table"),
        ('[providers."a/b"]\nprotocol = "openai_chat"\nbase_url = "http://a"', 1, "is no name for it"),
        ('[serve]\nport = "80"', 2, "0 to 65535"),
        ("[serve]\nmodel = [3]", 2, "must be a string"),
        ("[serve]\nmodel = 3", 2, "array of names"),
        ('[serve]\njson = "yes"', 2, "true or false"),
        ('[serve]\nhots = "x"', 2, "nearest is 'host'"),
        ("serve = 3", 1, "must be a table"),
        ("a = 1\na = 2", 2, "is not TOML"),
        ("[models", 1, "is not TOML"),
        ('x = """\n\n', 3, "is not TOML"),
        ("a = " + "[" * 5000, 1, "nested too deeply"),
        ("a = " + "9" * 5000, 1, "is not TOML"),
    ],
)
def test_each_kind_of_problem(text: str, line: int, said: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(f"t.toml:{line}: ")
    assert said in found[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a", "is no URL"),
        ("http://", "is no URL"),
        ("http://a:99999", "is no URL"),
        ("http://[::1", "is no URL"),
        ("http://a b", "is no URL"),
        ("localhost:9100", "is no URL"),
        ("unix:relative", "is no URL"),
        ("http://user:s3cret@a", "must not hold credentials"),
        ("http://a/v1?key=1", "query"),
    ],
)
def test_bad_urls(url: str, said: str) -> None:
    (problem,) = problems(f'[providers.a]\nprotocol = "openai_chat"\nbase_url = "{url}"')
    assert problem.startswith("t.toml:3: providers.a.base_url ")
    assert said in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("url", ["http://a/v1/", "https://[::1]:8080/v1", "unix:/run/a.sock|/v1", "unix:/run/a.sock"])
def test_good_urls(url: str) -> None:
    text = f'[providers.a]\nprotocol = "openai_chat"\nbase_url = "{url}"'
    assert read(text).providers["a"].base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('"env:"', "env:NAME"),
        ('"env:1A"', "env:NAME"),
        ('"file:relative"', "absolute path"),
        ('"${S3CRET}"', 'instead of "${NAME}"'),
        ('"S3CRET with spaces"', "spaces"),
        ('"S3CRET\\n"', "control characters"),
        ('""', "is empty"),
        ('["S3CRET"]', "not an array"),
    ],
)
def test_bad_credentials_are_not_repeated(key: str, said: str) -> None:
    (problem,) = problems(PROVIDER + f"api_key = {key}")
    assert said in problem
    assert "S3CRET" not in problem


def test_known_providers_need_no_table_and_can_be_changed() -> None:
    known = {
        "shipped": ProviderConfig("shipped", ("openai_chat",), "https://shipped/v1", ("env:SHIPPED_KEY",)),
        "unused": ProviderConfig("unused", ("openai_chat",), "https://unused/v1"),
    }
    target = '[models.m]\ntargets = ["shipped/model"]\n'
    assert read(target, known_providers=known).providers == {"shipped": known["shipped"]}
    changed = read(target + '[providers.shipped]\napi_key = "env:OTHER"', known_providers=known).providers["shipped"]
    assert changed == ProviderConfig("shipped", ("openai_chat",), "https://shipped/v1", ("env:OTHER",))
    assert "nearest is 'shipped'" in problems(target.replace("shipped", "shiped"), known_providers=known)[0]


def test_a_provider_may_have_several_protocols_keys_and_labels() -> None:
    text = """
[providers.a]
protocol = ["openai_chat", "anthropic"]
base_url = "https://{region}.host/{team}/v1"
api_keys = ["env:A", "env:B:C", "file:/d"]
region = "eu-central-1"
settings = {team = "blue"}
jurisdiction = "EU"
retention = "30d"
trains = false
quantization = "fp8"
capabilities = ["tools"]
quirks = ["no_echo"]
models = {"org/m" = {context_length = 8192, quantization = "int4", capabilities = []}}
"""
    provider = read(text).providers["a"]
    assert (provider.protocols, provider.url) == (("openai_chat", "anthropic"), "https://eu-central-1.host/blue/v1")
    assert provider.api_keys == ("env:A", "env:B:C", "file:/d")
    assert (provider.jurisdiction, provider.retention, provider.trains) == ("EU", 30 * 86400, False)
    assert (provider.quantization, provider.capabilities, provider.quirks) == ("fp8", ("tools",), ("no_echo",))
    assert provider.models["org/m"] == ModelFacts(8192, "int4", ())


def test_what_nobody_said_is_unknown() -> None:
    provider = read(PROVIDER).providers["a"]
    assert (provider.region, provider.jurisdiction, provider.quantization) == ("", "", "")
    assert (provider.retention, provider.trains, provider.capabilities) == (None, None, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('retention = "a month"', '"30d"'),
        ("retention = -1", "0 says that nothing is kept"),
        ("trains = 1", "must be true or false"),
        ('api_key = "a"\napi_keys = ["b"]', "has both api_key and api_keys"),
        ('api_keys = "b"', "must be an array"),
        ('like = "shiped"', "nearest is 'shipped'"),
        ("settings = {team = 1}", "settings.team must be a string"),
        ("models = {m = {context = 1}}", "nearest is 'context_length'"),
    ],
)
def test_bad_labels_and_keys_are_told(line: str, said: str) -> None:
    known = {"shipped": ProviderConfig("shipped", ("openai_chat",), "https://shipped/v1")}
    (problem,) = problems(PROVIDER + line, known_providers=known)
    assert said in problem


def test_a_placeholder_that_nothing_fills_is_told_with_its_remedy() -> None:
    known = {"far": ProviderConfig("far", ("openai_chat",), "https://{region}.far/{team}")}
    target = '[models.m]\ntargets = ["far/model"]\n'
    region, team = problems(target, known_providers=known)
    assert 'add region = "..." to [providers.far]' in region
    assert 'add settings = {team = "..."} to [providers.far]' in team
    table = target + '[providers.near]\nlike = "far"\nregion = "x"\nsettings = {team = "y"}'
    assert "providers.far.base_url needs {region}" in problems(table, known_providers=known)[0]
    near = read(table.replace("far/model", "near/model"), known_providers=known).providers["near"]
    assert near.url == "https://x.far/y"


def test_a_plane_that_knows_no_engines_takes_any() -> None:
    text = '[models.m]\nengine = "of-another-plane"'
    assert parse(text, file="t.toml", protocols=(), engines=None).models["m"].engine == "of-another-plane"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load(path, protocols=PROTOCOLS, engines=ENGINES)
        return str(caught.value)

    assert said(tmp_path / "none.toml") == f"{tmp_path}/none.toml:1: cannot be read: No such file or directory; " + (
        "name a readable file"
    )
    assert "cannot be read" in said(tmp_path)
    (tmp_path / "latin.toml").write_bytes("# fine\n# caf\xe9".encode("latin-1"))
    assert said(tmp_path / "latin.toml") == f"{tmp_path}/latin.toml:2: is not UTF-8; save it in UTF-8"


# Any valid configuration, written as TOML in any of TOML's ways, is read back as it was.

name = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
model = st.lists(
    st.from_regex(r"[^\s\x00-\x1f\x7f-\x9f/]{1,6}", fullmatch=True).filter(str.isprintable), min_size=1, max_size=3
)
model_name = model.map("/".join)
seconds = st.floats(min_value=0.001, max_value=86_400)
nano = st.integers(min_value=0, max_value=10**15)
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
option = st.recursive(
    st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False) | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=5,
)
provider = st.builds(
    ProviderConfig,
    name=st.just(""),
    protocols=st.lists(st.sampled_from(sorted(PROTOCOLS)), min_size=1, max_size=2, unique=True).map(tuple),
    base_url=st.sampled_from(["http://a", "https://b.example:8443/v1", "unix:/run/x.sock|/v1"]),
    api_keys=st.lists(st.sampled_from(["env:KEY", "env:A:B", "file:/run/key", "sk-literal"]), max_size=2).map(tuple),
    settings=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y z"])),
    jurisdiction=st.sampled_from(["", "EU"]),
    retention=st.none() | st.integers(0, 10**9),
    trains=st.none() | st.booleans(),
    quantization=st.sampled_from(["", "fp8"]),
    capabilities=st.sampled_from([None, ("tools", "vision")]),
    region=st.sampled_from(["", "eu"]),
    costs=st.dictionaries(st.sampled_from(["m", "org/m-1.5"]), st.deferred(lambda: price)),
)
limits = st.builds(RouteLimits, connect=seconds, first_token=seconds, idle=seconds, total=seconds)
policy = st.builds(
    Policy,
    retries=st.integers(0, 1000),
    hedge=st.floats(0, 0.999),
    on_stream_loss=st.sampled_from(["resume", "restart", "error"]),
    breaker=st.integers(0, 1000),
    stream_whole=st.booleans(),
    cache=st.integers(0, 10**9),
    cache_max=st.integers(0, 10**9),
    cache_price=st.floats(0, 1),
)
OURS = "gpu_ms"
"""The kind that has no price where others answer."""
tokens = {STATED[key][0]: nano for key in ("input", "output", "cached_input", "cache_write_1h", "reasoning")}
units = {kind: nano.map(factor.__mul__) for kind, factor in STATED.values() if factor > 1 and kind != OURS}
optional = {kind: rate for kind, rate in (tokens | units).items() if kind not in ("input", "output")}
price = st.fixed_dictionaries({"input": nano, "output": nano}, optional=optional) | st.fixed_dictionaries(units)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    providers = {
        key: replace(value, name=key) for key, value in draw(st.dictionaries(name, provider, max_size=3)).items()
    }
    models = {}
    for key in draw(st.lists(model_name, max_size=3, unique=True)):
        shared = {"name": key, "limits": draw(limits), "policy": draw(policy), "price": draw(price)}
        if providers and draw(st.booleans()):
            target = st.tuples(st.sampled_from(sorted(providers)), model_name).map("/".join)
            models[key] = ModelConfig(
                targets=tuple(draw(st.lists(target, min_size=1, max_size=3, unique=True))), **shared
            )
        else:
            shared["price"] |= draw(st.just({}) | st.fixed_dictionaries({OURS: nano.map((1_000).__mul__)}))
            models[key] = ModelConfig(
                engine=draw(st.sampled_from(sorted(ENGINES))),
                weights=draw(st.none() | st.just("file:/a b.gguf")),
                options=draw(st.dictionaries(printable, option, max_size=3)),
                **shared,
            )
    options = draw(st.fixed_dictionaries({}, optional={"host": st.just("::1"), "port": st.integers(0, 65535)}))
    return Configuration(providers, models, options)


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quote(key)} = {write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",\n  ".join(write(item) for item in value) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" in text else f"{text}.0"
    return str(value) if isinstance(value, int) else quote(value)


def plain(record: Any) -> dict[str, Any]:
    """A record as the file says it: without its name, money in USD."""
    said = {field.name: getattr(record, field.name) for field in fields(record) if field.name != "name"}
    if isinstance(record, ModelConfig):
        said["limits"] = plain(record.limits)
        said["policy"] = plain(record.policy)
        said["price"] = stated(record.price) if record.price is not None else None
        said = {key: value for key, value in said.items() if key != "options" or value}
    if isinstance(record, ProviderConfig):
        said["protocol"] = said.pop("protocols")
        said["costs"] = {model: stated(rates) for model, rates in record.costs.items()}
    return {key: value for key, value in said.items() if value not in (None, (), "", {})}


def stated(rates: dict[str, int]) -> dict[str, Any]:
    names = {kind: (name, unit) for name, (kind, unit) in STATED.items()}
    return {names[kind][0]: Usd(nano_to_usd(rate // names[kind][1])) for kind, rate in rates.items()}


class Usd(int):
    """Writes itself as the decimal text that it was made of."""

    def __new__(cls, text: str) -> "Usd":
        amount = super().__new__(cls, 0)
        amount.text = text
        return amount

    text: str

    def __str__(self) -> str:
        return self.text


def as_headers(configuration: Configuration) -> str:
    text = ""
    for kind, records in (("providers", configuration.providers), ("models", configuration.models)):
        for key, record in records.items():
            text += f"[{kind}.{quote(key)}]\n"
            text += "".join(f"{item} = {write(value)}\n" for item, value in plain(record).items())
    return text + "[serve]\n" + "".join(f"{key} = {write(value)}\n" for key, value in configuration.options.items())


def as_dotted(configuration: Configuration) -> str:
    text = ""
    for kind, records in (("providers", configuration.providers), ("models", configuration.models)):
        for key, record in records.items():
            text += "".join(f"{kind} . {quote(key)}.{item} = {write(value)}\n" for item, value in plain(record).items())
    return text + "".join(f"serve.{key} = {write(value)}\n" for key, value in configuration.options.items())


def as_inline(configuration: Configuration) -> str:
    tables = {
        "providers": {key: plain(record) for key, record in configuration.providers.items()},
        "models": {key: plain(record) for key, record in configuration.models.items()},
        "serve": configuration.options,
    }
    return "".join(f"{key} = {write(value)}\n" for key, value in tables.items())


@pytest.mark.parametrize("way", [as_headers, as_dotted, as_inline])
@given(configuration=configurations())
def test_what_is_written_is_read(way: Callable[[Configuration], str], configuration: Configuration) -> None:
    assert read(way(configuration)) == configuration


@given(value=nano)
def test_prices_are_exact(value: int) -> None:
    text = f'[models.m]\nengine = "echo"\nprice = {{input = {nano_to_usd(value)}, output = 0}}'
    assert read(text).models["m"].price == {"input": value, "output": 0}


@pytest.mark.parametrize(
    ("price", "rates"),
    [
        ("{request = 0.01}", {"priced_requests": 10_000_000 * 1_000_000}),
        ("{gpu_second = 0.001525}", {"gpu_ms": 1_525_000_000}),
        ("{audio_second = 0.0001}", {"audio_ms": 100_000_000}),
        ("{image = 0.04}", {"images": 40_000_000 * 1_000_000}),
    ],
)
def test_prices_of_units(price: str, rates: dict[str, int]) -> None:
    assert read(f'[models.m]\nengine = "echo"\nprice = {price}').models["m"].price == rates


@pytest.mark.parametrize(
    ("price", "why"),
    [
        ("{}", "models.m.price states no rate; 0 is one too"),
        ("{input = 1}", "models.m.price states no rate for output; write 0 if that is free"),
        ("{cached_input = 1, output = 1}", "models.m.price states no rate for input; write 0 if that is free"),
    ],
)
def test_what_a_price_leaves_out_is_not_taken_for_free(price: str, why: str) -> None:
    assert problems(f'[models.m]\nengine = "echo"\nprice = {price}') == [f"t.toml:3: {why}"]
    text = f'[providers.p]\nprotocol = "openai_chat"\nbase_url = "http://a"\ncosts = {{"x" = {price}}}'
    assert problems(text) == [f"t.toml:4: {why.replace('models.m.price', 'providers.p.costs.x')}"]


# Whatever is done to a valid file, the answer is a configuration or a list of problems at lines of that file.

SNIPPETS = ["[", "]", "{", "}", '"', "'''", "=", ".", ",", "\n", "#", "\\", "\0", "é", "1e999999999999999999999", "inf"]
SNIPPETS += [
    "-1",
    "true",
    "1979-05-27",
    "[[models.x]]\n",
    "[models]\n",
    "[serve]\n",
    "targets",
    "price = 1\n",
    "0x",
    "-",
]


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(["", *SNIPPETS]) | st.text(max_size=5)),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_file_never_crashes(damages: list[tuple[float, int, str]]) -> None:
    text = EXAMPLE
    for where, length, snippet in damages:
        at = math.floor(where * len(text))
        text = text[:at] + snippet + text[at + length :]
    try:
        assert isinstance(read(text), Configuration)
    except ConfigError as error:
        assert error.problems
        assert all(1 <= problem.line <= text.count("\n") + 1 for problem in error.problems)
        assert str(error).count("t.toml:") >= len(error.problems)


def test_a_literal_key_is_not_shown_by_a_traceback_or_a_problem() -> None:
    found = problems(PROVIDER + 'api_key = "sk-S3CRET"\nprotocl = 1')
    assert "S3CRET" not in "\n".join(found)


def test_aliases() -> None:
    text = """
[models.m]
engine = "echo"
[aliases.chat]
to = {m = 9, "org/other" = 1}
sticky = "user"
canary = {to = "new", percent = 2.5}
price = {input = 1, output = 2}
[[aliases.chat.rules]]
name = "gold"
when = {metadata = {tier = "gold"}}
to = "m"
"""
    chat = read(text).aliases["chat"]
    assert chat.price == {"input": 1_000_000_000, "output": 2_000_000_000}
    assert chat.definition == {
        "to": {"m": 9, "org/other": 1},
        "sticky": "user",
        "canary": {"to": "new", "percent": 2.5},
        "rules": [{"name": "gold", "when": {"metadata": {"tier": "gold"}}, "to": "m"}],
    }


def test_what_is_wrong_with_aliases_is_told_with_its_line() -> None:
    assert problems("""
[aliases.m]
to = "x"
[aliases.chat]
to = {x = 0}
price = {input = 1}
[[aliases.chat.rules]]
when = {user = "u"}
to = "x"
[[aliases.chat.rules]]
when = {users = "u"}
to = "x"
[aliases.a]
to = "b"
[aliases.b]
to = "c"
shadow = {to = "a", percent = 1}
[models.m]
engine = "echo"
""") == [
        "t.toml:2: aliases.m has the name of a model; give it another one",
        "t.toml:5: aliases.chat.to has no weight above 0, so nobody would answer",
        "t.toml:6: aliases.chat.price states no rate for output; write 0 if that is free",
        "t.toml:11: aliases.chat.rules[1].when.users is unknown; known: key, project, organization, user, protocol, "
        "needs, hours, days, metadata, prompt_tokens",
        "t.toml:13: aliases lead in a circle: a -> b -> a; let one name a model",
    ]  # fmt: skip
