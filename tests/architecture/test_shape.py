"""The shape of the code, held by CI: import direction, sizes, names in their place, adapters with their papers."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenworks.protocols import PROTOCOLS
from tokenworks.worker.engines import ENGINES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tokenworks"
FILES = sorted(SOURCE.rglob("*.py"))

FILE_LINES = 500
FUNCTION_LINES = 100
MEDIAN_FILE_LINES = 120
PARAMETERS = 8


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_import_direction() -> None:
    """The contracts are in pyproject.toml: layers, the light gateway, pure protocols."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_core_imports_only_the_standard_library() -> None:
    for path in (SOURCE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".")[0]
                ours = module == "tokenworks.core" or module.startswith("tokenworks.core.")
                assert ours or top in sys.stdlib_module_names, f"{name(path)} imports {module}"


def test_file_sizes() -> None:
    sizes = {name(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: size for path, size in sizes.items() if size > FILE_LINES}
    assert statistics.median(size for size in sizes.values() if size > 3) <= MEDIAN_FILE_LINES


def test_function_sizes_and_parameters() -> None:
    for path in FILES:
        for node in functions(path):
            where = f"{name(path)}:{node.lineno} {node.name}"
            assert (node.end_lineno or node.lineno) - node.lineno < FUNCTION_LINES, f"{where} is too long"
            if "serve" in name(path) or name(path).startswith("cli/"):
                continue  # a command's parameters are its options
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            taken = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(taken) <= PARAMETERS, f"{where} has {len(taken)} parameters"


def test_the_story_of_a_request_fits_one_screen() -> None:
    assert len((SOURCE / "gateway" / "pipeline.py").read_text().splitlines()) < 200


def test_no_dumping_ground_modules() -> None:
    bad = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [name(path) for path in FILES if path.stem in bad or path.parent.name in bad]


def test_every_module_says_what_it_is_for() -> None:
    assert not [
        name(path) for path in FILES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]


def test_nothing_is_rebound_globally_and_nothing_is_swallowed_silently() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Global), f"{name(path)}:{node.lineno} uses global"
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                pytest.fail(f"{name(path)}:{node.lineno} is a bare except")


def test_no_wait_swallows_a_cancellation() -> None:
    """Before Python 3.12 asyncio.wait_for drops a cancellation that comes as its future is done."""
    assert not [name(path) for path in FILES if "asyncio.wait_for(" in path.read_text()]


def test_only_settings_read_the_environment() -> None:
    """Locations of a person's own machine (cache, terminal) are the command line's business."""
    allowed = re.compile(r"(^|/)settings\.py$|^cli/|^serve|^models/")
    for path in FILES:
        text = path.read_text()
        if re.search(r"os\.environ|os\.getenv", text) and not allowed.search(name(path)):
            pytest.fail(f"{name(path)} reads the environment; only settings.py may")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def leaks(words: set[str], home: str, allowed: set[str]) -> list[str]:
    """A name with an underscore is nobody else's word; a plain word leaks where it is the whole string."""
    coined = [re.escape(word) for word in sorted(words) if "_" in word or "." in word]
    pattern = re.compile(rf"(?<![a-z])({'|'.join(coined)})(?![a-z])") if coined else None
    return [
        f"{name(path)}:{line} {text!r}"
        for path in FILES
        if not name(path).startswith(home) and name(path) not in allowed
        for line, text in strings(path)
        if text in words or (pattern is not None and pattern.search(text))
    ]


def test_protocol_names_stay_in_their_place() -> None:
    """The gateway's table of surfaces, the protocols' own table, an engine's statement of what it speaks."""
    tables = {
        "bench/parameters.py",
        "bench/samples.py",
        "gateway/app.py",
        "gateway/edge/asgi.py",
        "gateway/edge/surfaces.py",
        "gateway/upstreams/probe.py",
    }
    words = set(PROTOCOLS) - {"worker", "rerank"}  # also a plane's name, also a capability's name
    found = leaks(words, "protocols/", tables)
    assert not [leak for leak in found if not leak.startswith("worker/engines/")]


def test_engine_names_stay_in_their_place() -> None:
    parameters = {"bench/samples.py", "gateway/upstreams/echoed.py"}  # `echo` is a parameter of text completions
    found = leaks(set(ENGINES), "worker/engines/", parameters)
    assert not [leak for leak in found if not leak.startswith("protocols/")]


PROVIDERS = {"openai.com", "anthropic", "groq", "together", "fireworks", "replicate", "mistral", "deepseek", "cerebras"}


def test_provider_names_stay_in_their_place() -> None:
    """A protocol that is called like its host is guarded as a protocol."""
    assert not leaks(PROVIDERS - set(PROTOCOLS), "gateway/upstreams/providers/", set())


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_has_its_files_a_recording_and_a_page(protocol: str) -> None:
    folder = SOURCE / "protocols" / protocol
    for verb in ("types", "requests", "codec"):
        assert (folder / f"{verb}.py").exists(), f"protocols/{protocol} has no {verb}.py"
    assert any((folder / f"{verb}.py").exists() for verb in ("stream", "responses")), (
        f"protocols/{protocol} answers not"
    )
    recorded = ROOT / "tests" / "recorded" / protocol
    assert list(recorded.glob("*")), f"tests/recorded/{protocol} has no specimen"
    assert protocol in (ROOT / "docs" / "protocols.md").read_text()


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_engine_has_a_page(engine: str) -> None:
    assert engine in (ROOT / "docs" / "add-an-engine.md").read_text()


def test_every_relative_link_in_the_docs_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_file_names_in_the_walk_of_a_request_are_true() -> None:
    text = (ROOT / "docs" / "request.md").read_text()
    named = set(re.findall(r"`((?:gateway|protocols|journal|snapshot|core|control|worker)/[a-z_/<>]+\.py)`", text))
    assert len(named) > 10
    for path in named:
        assert (SOURCE / path.replace("<name>", "openai_chat")).exists(), f"docs/request.md names {path}"
