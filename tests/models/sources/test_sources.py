from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenworks.models.errors import InvalidSource
from tokenworks.models.sources import SCHEMES, parse, scheme_of
from tokenworks.models.sources.hub import HubFile
from tokenworks.models.sources.local import LocalFile
from tokenworks.models.sources.wheel import WheelFile

segment = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,12}", fullmatch=True)
segments = st.lists(segment, min_size=1, max_size=3).map("/".join)
package = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
version = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}((a|b|rc)[0-9])?", fullmatch=True)


@given(org=segment, repo=segment, file=segments, revision=st.none() | segments)
def test_hub_source_is_read_as_it_is_written(org: str, repo: str, file: str, revision: str | None) -> None:
    text = f"hf:{org}/{repo}/{file}" + (f"@{revision}" if revision else "")
    assert parse(text) == HubFile(f"{org}/{repo}", file, revision)


@given(package=package, version=version, member=segments)
def test_wheel_source_is_read_as_it_is_written(package: str, version: str, member: str) -> None:
    assert parse(f"pip:{package}=={version}/{member}") == WheelFile(package, version, member)


@given(path=segments)
def test_file_source_is_read_as_it_is_written(path: str) -> None:
    assert parse(f"file:/{path}") == LocalFile(Path("/") / path) == parse(f"file:///{path}")


@given(scheme=st.sampled_from([*SCHEMES, "http", "", "HF"]), rest=st.text())
@example("pip", "package==1.0/../../etc/passwd")
@example("pip", "package>=1.0/model.gguf")
@example("pip", "--index-url==1/x")
@example("hf", "org/repo/../file")
@example("hf", "org/repo")
@example("file", "relative.gguf")
@example("file", "/nul\0byte")
def test_any_other_text_is_refused_with_a_remedy(scheme: str, rest: str) -> None:
    try:
        source = parse(f"{scheme}:{rest}")
    except InvalidSource as error:
        assert error.remedy.endswith(".")
    else:
        assert scheme in SCHEMES
        assert ".." not in rest.split("/") or isinstance(source, LocalFile)


@pytest.mark.parametrize("name", ["smollm2-135m", "org/model", "org/model:tag", ""])
def test_a_name_has_no_scheme(name: str) -> None:
    assert scheme_of(name) is None


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(InvalidSource, match="hf:, file:, pip:"):
        parse("https://example.org/model.gguf")
