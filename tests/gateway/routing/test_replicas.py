"""A request goes where most of its prompt is held, as two real engines tell it to real gateways."""

import os
import signal
from collections.abc import Iterator

import msgspec
import pytest
from tests.gateway.conftest import Gateway, Loop, wait_for
from tests.gateway.replicas import Replica
from tests.gateway.two_replicas import LISTENS, OTHER_KEY, ask, fleet, held, story, talk
from tests.worker.conftest import UnixConnection

from tokenworks.protocols.worker.framing import Frames
from tokenworks.protocols.worker.kv import AllBlocksCleared, KVEvent

EVENTS: msgspec.msgpack.Decoder[KVEvent] = msgspec.msgpack.Decoder(KVEvent)

ONLY_B = {"x-tokenworks-only": "b"}
PUBLIC = 32
"""What the chat template says to everybody has fewer tokens."""


@pytest.fixture(scope="module")
def running(servers: Loop) -> Iterator[tuple[list[Gateway], dict[str, Replica]]]:
    with fleet(servers, LISTENS, LISTENS) as everything:
        yield everything


@pytest.fixture
def gateway(running: tuple[list[Gateway], dict[str, Replica]]) -> Gateway:
    return running[0][0]


@pytest.fixture
def other(running: tuple[list[Gateway], dict[str, Replica]]) -> Gateway:
    return running[0][1]


def known(gateway: Gateway, messages: list[dict[str, str]]) -> bool:
    """That b, and not a, holds them."""
    tokens = held(gateway, messages)
    return (tokens["b"] or 0) > PUBLIC > (tokens["a"] or 0)


ONLY_B = {"x-tokenworks-only": "b"}


def test_a_conversation_goes_on_where_it_began(gateway: Gateway, other: Gateway) -> None:
    """Also at a gateway that never saw it: the engines tell both."""
    begun = story()
    first = ask(gateway, talk(begun), **ONLY_B)
    wait_for(lambda: known(other, talk(begun)))
    second = ask(other, talk(begun, first.text, "And then?"))
    assert (first.who, second.who) == ("b", "b")
    assert second.cached > first.prompt - 16


def test_who_begins_alike_goes_where_that_is(gateway: Gateway) -> None:
    system = story()
    ask(gateway, talk("Who are you?", system=system), **ONLY_B)
    wait_for(lambda: known(gateway, talk("Another one", system=system)))
    answer = ask(gateway, talk("And where is the sea?", system=system))
    assert answer.who == "b"
    assert answer.cached > answer.prompt * 0.7


def test_another_tenant_learns_nothing(gateway: Gateway) -> None:
    messages = talk(story())
    ask(gateway, messages, **ONLY_B)
    wait_for(lambda: known(gateway, messages))
    assert held(gateway, messages, OTHER_KEY) == {"a": 0, "b": 0}
    answer = ask(gateway, messages, OTHER_KEY)
    assert answer.who == "a"
    assert answer.cached < PUBLIC


def test_a_prefix_that_was_removed_is_forgotten(gateway: Gateway) -> None:
    messages = talk(story())
    ask(gateway, messages, **ONLY_B)
    wait_for(lambda: known(gateway, messages))
    for _ in range(12):  # more than the cache holds
        if not known(gateway, messages):
            break
        ask(gateway, talk(story()), **ONLY_B)
    wait_for(lambda: (held(gateway, messages)["b"] or 0) < PUBLIC)
    assert ask(gateway, messages).who == "a"


def test_an_engine_that_begins_anew_holds_nothing(
    gateway: Gateway, running: tuple[list[Gateway], dict[str, Replica]]
) -> None:
    messages = talk(story())
    ask(gateway, messages, **ONLY_B)
    wait_for(lambda: known(gateway, messages))
    (engine,) = running[1]["b"].worker.children()
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: held(gateway, messages)["b"] is None, 30)  # nobody tells of it any more
    assert ask(gateway, messages).who == "a"
    wait_for(lambda: held(gateway, messages)["b"] == 0, 60)


def test_whoever_listens_is_told_of_the_end(running: tuple[list[Gateway], dict[str, Replica]]) -> None:
    """A worker that stops does not wait for those who would listen for ever, nor does it cut them."""
    worker = running[1]["a"].worker
    connection = UnixConnection(str(worker.home / "w-engine.sock"))
    connection.request("POST", "/worker/v1/kv_events", "{}")
    response, reader = connection.getresponse(), Frames(EVENTS)
    first = reader.feed(response.read1())[0]
    assert isinstance(first, AllBlocksCleared)
    worker.process.send_signal(signal.SIGTERM)
    reader.feed(response.read())  # IncompleteRead when it was cut
    assert not reader.pending
    connection.close()
    assert worker.process.wait(60) == 0
