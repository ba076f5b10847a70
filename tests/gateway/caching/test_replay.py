"""An answer under another id: nothing else in it changes, whatever its text looks like."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tokenworks.gateway.caching.replay import again, id_of

text = st.text(max_size=20) | st.sampled_from(['"id":"old"', 'say "old', '\\"id\\": \\"old\\"', "old"])


@given(text, text, st.booleans())
def test_only_the_id_changes(content: str, arguments: str, stream: bool) -> None:
    answer = {"object": "x", "choices": [{"content": content, "calls": [{"id": "call", "a": arguments}]}], "id": "old"}
    plain = json.dumps(answer).encode()
    piece = b": a comment\n\ndata: " + plain + b"\n\n" if stream else plain
    assert id_of(piece, stream=stream) == "old"
    (out,) = again([piece], "old", "new", 0)
    assert json.loads(out.removeprefix(b": a comment\n\ndata: ")) == {**answer, "id": "new"}


def test_a_stream_tells_its_own_cost() -> None:
    told = b'data: {"usage":{"cost":0.1,"cost_nano_usd":100000000,"total_tokens":3}}\n\n'
    assert again([told], "", "new", 5) == [told.replace(b"0.1,", b"0.000000005,").replace(b"100000000", b"5")]
