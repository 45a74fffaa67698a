"""One delta ADS stream as a transcript: what the client asks, what changes, what it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.xds import delta
from ambient.xds.delta import BadRequest, Stream
from ambient.xds.names import ADDRESS, AUTHORIZATION, NOUN
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.wording import Wording

from . import wire
from .transcripts import THING, Client, Things, lines, things

# --- transcripts


def test_a_client_that_names_nothing_is_told_everything_and_every_change() -> None:
    client = Client(things(a="1", b="1"))
    assert lines(client.ask()) == [({"a": "1", "b": "1"}, [])]
    assert client.ack() == []
    assert lines(client.news(things(a="2", b="1"))) == [({"a": "2"}, [])]
    assert client.ack() == []
    assert lines(client.news(things(a="2", c="1"))) == [({"c": "1"}, ["b"])]
    assert client.ack() == []


def test_the_first_answer_comes_even_when_there_is_nothing() -> None:
    client = Client(things())
    assert lines(client.ask()) == [({}, [])]
    assert client.ack() == []


def test_a_type_that_nobody_knows_is_empty() -> None:
    assert lines(Client(things(a="1")).ask(of="type/other")) == [({}, [])]


def test_after_a_reconnection_only_differences_are_told_and_what_is_gone() -> None:
    client = Client(things(a="1", b="2", c="1"))
    assert lines(client.ask(have={"a": "1", "b": "1", "gone": "1"})) == [({"b": "2", "c": "1"}, ["gone"])]


def test_a_client_that_holds_everything_is_answered_with_nothing() -> None:
    assert lines(Client(things(a="1")).ask(have={"a": "1"})) == [({}, [])]


def test_a_slow_client_skips_what_came_and_went() -> None:
    client = Client(things(a="1"))
    client.ask()
    for state in (things(a="2"), things(a="3", b="1"), things(a="4", b="1", c="1"), things(a="5", c="1")):
        assert client.news(state) == []  # one response is under way
    assert lines(client.ack()) == [({"a": "5", "c": "1"}, ["b"])]
    assert client.ack() == []


def test_a_refusal_counts_as_an_answer_and_says_why() -> None:
    client = Client(things(a="1"))
    client.ask()
    assert client.ack(error="a: no good") == []
    assert client.problem == "a: no good"
    assert lines(client.news(things(a="2"))) == [({"a": "2"}, [])]
    client.ack()
    assert client.problem == ""


def test_a_refusal_without_a_word_is_still_one() -> None:
    client = Client(things(a="1"))
    (said,) = client.ask()
    request = pb.DeltaDiscoveryRequest(type_url=THING, response_nonce=said.nonce)
    request.error_detail.code = 3
    assert client.stream.receive(request) == "error 3, without a word"


def test_an_answer_to_another_stream_or_an_earlier_response_is_none() -> None:
    client = Client(things(a="1"))
    (said,) = client.ask()
    assert client.ask("x", response_nonce="nonsense") == []
    client.news(things(a="2"))
    assert lines(client.ack()) == [({"a": "2"}, ["x"])]
    assert client.ask(response_nonce=said.nonce) == []  # again, and stale by now
    client.news(things(a="3"))
    assert client.hear() == []


def test_nonces_are_never_repeated() -> None:
    client = Client(things(a="1"))
    seen = [each.nonce for each in client.ask()]
    for version in "234":
        client.ack()
        seen += [each.nonce for each in client.news(things(a=version))]
    assert len(seen) == len(set(seen)) == 4


def test_a_response_says_which_state_it_is_of_and_who_speaks() -> None:
    stream = Stream(replace(things(a="1"), revision="r7"), Wording("ambient/replica-1"))
    stream.receive(pb.DeltaDiscoveryRequest(type_url=THING))
    (response,) = stream.responses()
    raw = wire.decode(response.body)
    assert (wire.text(raw, 1), wire.text(raw, 4), wire.text(raw, 5)) == ("r7", THING, "1")
    (speaker,) = wire.messages(raw, 7)
    assert wire.text(speaker, 1) == "ambient/replica-1"


def test_the_node_is_remembered_from_the_first_request() -> None:
    stream = Stream(things(), Wording())
    stream.receive(pb.DeltaDiscoveryRequest(type_url=THING, node=pb.Node(id="first")))
    stream.receive(pb.DeltaDiscoveryRequest(type_url=NOUN))
    assert stream.node == "first"


# --- several types


def test_types_are_told_in_the_order_that_protects_first() -> None:
    state = Things({ADDRESS: {"pod": "1"}, AUTHORIZATION: {"policy": "1"}, NOUN: {"namespace": "1"}, THING: {"t": "1"}})
    client = Client(state)
    for url in (THING, ADDRESS, AUTHORIZATION, NOUN):
        client.ask(of=url)
        client.ack()
    news = Things({url: dict.fromkeys(found, "2") for url, found in state.tables.items()})
    assert [said.type_url for said in client.news(news)] == [NOUN, AUTHORIZATION, ADDRESS, THING]


def test_nothing_is_told_until_every_type_is_acknowledged() -> None:
    client = Client(Things({ADDRESS: {"a": "1"}, NOUN: {"b": "1"}}))
    client.ask(of=ADDRESS)
    assert client.ask(of=NOUN) == []
    assert [said.type_url for said in client.ack()] == [NOUN]
    client.ack()
    first, second = client.news(Things({ADDRESS: {"a": "2"}, NOUN: {"b": "2"}}))
    client.unanswered = [second]
    assert client.ack() == []
    client.unanswered = [first]
    assert client.ack() == []
    assert client.news(Things({ADDRESS: {"a": "3"}, NOUN: {"b": "2"}}))


def test_a_stream_asks_for_so_many_types_and_not_more() -> None:
    client = Client(things())
    for number in range(delta.TYPES_MAX):
        client.ask(of=f"type/{number}")
    with pytest.raises(BadRequest, match=r"type/more is one type more than the 16"):
        client.ask(of="type/more")


# --- pieces


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PIECE_RESOURCES", 2)


@pytest.mark.usefixtures("small_pieces")
def test_large_answers_come_in_pieces_and_the_last_one_completes_the_state() -> None:
    client = Client(things(a="1", b="1", c="1", d="1", e="1"), pieces=True)
    (first,) = client.ask(have={"gone": "1"})
    (second,) = client.ack()
    (third,) = client.ack()
    assert client.ack() == []
    assert [len(each.resources) + len(each.removed) for each in (first, second, third)] == [2, 2, 2]
    assert [each.more for each in (first, second, third)] == [True, True, False]
    assert client.holds[THING] == dict.fromkeys("abcde", "1")


@pytest.mark.usefixtures("small_pieces")
def test_a_client_that_knows_no_pieces_gets_everything_at_once() -> None:
    client = Client(things(a="1", b="1", c="1"))
    assert lines(client.ask()) == [({"a": "1", "b": "1", "c": "1"}, [])]
    client.ack()
    (said,) = client.news(things(a="2", b="2", c="2"))
    assert (len(said.resources), said.more) == (3, False)


def test_a_piece_is_bounded_in_bytes_and_holds_at_least_one_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PIECE_BYTES", 100)
    client = Client(things(a="1", b="v" * 90, c="v" * 200, d="1"), pieces=True)
    found = client.ask()
    for _ in range(3):
        found += client.ack()
    assert [[*each.resources] for each in found] == [["d"], ["c"], ["b"], ["a"]]


@pytest.mark.usefixtures("small_pieces")
def test_what_changes_between_pieces_is_in_the_state_that_they_complete() -> None:
    client = Client(things(a="1", b="1", c="1"), pieces=True)
    client.ask()
    assert client.news(things(a="2", c="2", d="2")) == []  # `a` was told already, `b` too
    found = client.ack() + client.ack()
    assert [each.more for each in found] == [True, False]
    assert client.holds[THING] == {"a": "2", "c": "2", "d": "2"}


def test_a_state_that_spans_types_is_complete_with_its_last_response() -> None:
    client = Client(Things({ADDRESS: {"a": "1"}, NOUN: {"b": "1"}}), pieces=True)
    for url in (NOUN, ADDRESS):
        client.ask(of=url)
        client.ack()
    said = client.news(Things({ADDRESS: {"a": "2"}, NOUN: {"b": "2"}}))
    assert [(each.type_url, each.more) for each in said] == [(NOUN, True), (ADDRESS, False)]


NAMED = st.sampled_from(["a", "b", "c", "d", "e"])
TABLES = st.dictionaries(NAMED, st.sampled_from(["1", "2", "3"]))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("news"), TABLES),
        st.tuples(st.just("ack"), st.none()),
        st.tuples(st.just("nack"), st.none()),
        st.tuples(st.just("ask"), st.lists(st.one_of(NAMED, st.just("*")), max_size=2)),
        st.tuples(st.just("drop"), st.lists(st.one_of(NAMED, st.just("*")), min_size=1, max_size=2)),
        st.tuples(st.just("reconnect"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(TABLES, EVENTS, st.booleans(), st.integers(1, 3))
def test_whatever_happens_the_client_ends_with_what_it_wants_of_the_newest_state(
    first: dict[str, str], events: list[tuple[str, Any]], pieces: bool, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "PIECE_RESOURCES", size)
        state, everything, wanted = things(**first), True, set[str]()
        client = Client(state, pieces=pieces)
        client.ask()
        for what, value in events:
            match what:
                case "news":
                    state = things(**value)
                    client.news(state)
                case "ack" | "nack":
                    client.ack(error="" if what == "ack" else "no")
                case "ask" if value:
                    client.ask(*value)
                    everything = everything or "*" in value
                    wanted |= {*value} - {"*"}
                case "drop":
                    client.ask(drop=value)
                    everything = everything and "*" not in value
                    wanted -= {*value}
                    for name in client.holds.setdefault(THING, {}).keys() - (wanted if not everything else {*"abcde"}):
                        del client.holds[THING][name]  # the client's own business, says the protocol
                case "reconnect":
                    held = client.holds.get(THING, {})
                    client = Client(state, pieces=pieces)
                    client.holds[THING] = held
                    everything = everything or not wanted  # who wants nothing does not ask
                    client.ask(*(["*"] if everything else []), *wanted, have=held)
        state = things(**{**state.tables[THING], "a": "last"})
        last = client.news(state)
        while client.unanswered:
            last = client.ack() or last
        assert not any(each.more for each in last[-1:])
        held = client.holds.get(THING, {})
        table = state.tables[THING]
        expected = {name: version for name, version in table.items() if everything or name in wanted}
        assert {name: held.get(name) for name in expected} == expected
        assert not held.keys() & (wanted | ({*"abcde"} if everything else set())) - table.keys()
