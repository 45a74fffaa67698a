"""list -> LISTED -> watch, told as transcripts: what was asked, what was answered, what came of it."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.follow import Follower, Found, Happened, Item, Listed, Started, Trouble, Watching
from tests.identity import virtual

from .script import (
    GONE,
    UNREACHABLE,
    Answer,
    Script,
    a_bookmark,
    a_failure,
    a_list,
    a_namespace,
    a_watch,
    an_error,
    an_event,
)

PATH = "/api/v1/namespaces"
ENDS = a_watch(1.5)  # as servers end watches: after a while


def told(item: Item) -> str:
    match item:
        case Found(objects):
            return "found " + " ".join(one["metadata"]["name"] for one in objects)
        case Listed(version):
            return f"listed {version}"
        case Happened(events):
            return "happened " + " ".join(f"{e.change.value}:{e.object['metadata']['name']}" for e in events)
        case Trouble(text):
            return f"trouble {text}"
        case Started() | Watching():
            return type(item).__name__.lower()


def follow(
    *answers: Answer | Exception, count: int, resource: kinds.Resource = kinds.CORE[0], path: str = PATH
) -> tuple[list[str], Script]:
    """The first items that are told."""
    script = Script({path: list(answers)})
    found: list[str] = []

    async def run() -> None:
        follower = Follower(script.client(), resource, "v1", chance=lambda: 0.0)
        async with contextlib.aclosing(follower.items()) as items:
            async for item in items:
                found.append(told(item))
                if len(found) == count:
                    return

    virtual.run(run())
    return found, script


def asked(script: Script) -> list[str]:
    """Each request in short: list, list CONTINUE, watch VERSION."""
    shorts = []
    for params in script.asked:
        if params.get("watch"):
            shorts.append("watch " + params["resourceVersion"])
        else:
            limit = "" if "limit" in params else "whole "
            shorts.append(f"{limit}list {params.get('continue', '')}".strip())
    return shorts


A, B = a_namespace("a"), a_namespace("b")
LISTED = ["started", "found a", "listed 100"]


def test_list_then_watch_from_there() -> None:
    watch = a_watch(an_event("ADDED", a_namespace("b", "101")), 5.0, an_event("DELETED", a_namespace("a", "102")))
    found, script = follow(a_list(A), watch, count=6)
    assert found == [*LISTED, "watching", "happened ADDED:b", "happened DELETED:a"]
    assert asked(script) == ["list", "watch 100"]
    assert script.asked[1]["allowWatchBookmarks"] == "true"
    assert 300 <= int(script.asked[1]["timeoutSeconds"]) <= 360


def test_a_list_comes_in_pages() -> None:
    found, script = follow(a_list(A, more="next"), a_list(B), ENDS, count=4)
    assert found == ["started", "found a", "found b", "listed 100"]
    assert asked(script) == ["list", "list next"]
    assert script.asked[0]["limit"] == "500"


def test_an_empty_list_is_complete_too() -> None:
    assert follow(a_list(), ENDS, count=3)[0] == ["started", "listed 100", "watching"]


def test_a_long_page_is_handed_on_in_portions() -> None:
    found, _ = follow(a_list(*(a_namespace(f"n{n}") for n in range(250))), count=5)
    assert [len(item.split()) - 1 for item in found[1:4]] == [100, 100, 50]


def test_a_field_selector_goes_with_every_request() -> None:
    pods = kinds.CORE[3]
    _, script = follow(a_list(more="next"), a_list(), count=3, resource=pods, path="/api/v1/pods")
    assert all(params["fieldSelector"] == kinds.UNFINISHED for params in script.asked)
    assert len(script.asked) == 3


def test_a_watch_that_the_server_ends_goes_on_where_it_was_at_once() -> None:
    watch = a_watch(an_event("ADDED", a_namespace("b", "101")), a_bookmark("150"), 300.0)
    found, script = follow(a_list(A), watch, ENDS, ENDS, count=7)
    assert found == [*LISTED, "watching", "happened ADDED:b", "watching", "watching"]
    assert asked(script) == ["list", "watch 100", "watch 150", "watch 150"]
    assert script.times == [0, 0, 300, 301.5]


@pytest.mark.parametrize("cut", range(1, 230, 19))
def test_pieces_may_end_anywhere(cut: int) -> None:
    lines = (
        an_event("ADDED", a_namespace("ä", "101")) + a_bookmark("102") + an_event("DELETED", a_namespace("a", "103"))
    )
    answers = [a_list(A), a_watch(lines[:cut], 9.0, lines[cut:], 300.0), ENDS, ENDS]
    found, script = follow(*answers, count=7)
    events = " ".join(found[4:]).replace("happened ", "").replace(" watching", "")
    assert events == "ADDED:ä DELETED:a"
    assert asked(script)[:3] == ["list", "watch 100", "watch 103"]


def test_half_an_event_before_the_connection_broke_is_asked_for_again() -> None:
    event = an_event("ADDED", a_namespace("b", "101"))
    found, script = follow(a_list(A), a_watch(event[:-9], GONE), a_watch(event, 300.0), count=7)
    assert found == [*LISTED, "watching", "trouble https://api.test: connection reset", "watching", "happened ADDED:b"]
    assert asked(script) == ["list", "watch 100", "watch 100"]
    found, script = follow(a_list(A), a_watch(event[:-9], 2.0), a_watch(event, 300.0), count=6)
    assert found == [*LISTED, "watching", "watching", "happened ADDED:b"]


EXPIRED = {
    "as an answer": (a_failure(410, "too old resource version"), 0),
    "in the stream": (a_watch(an_error(410, "too old resource version")), 1),
    "in the stream, after an event": (
        a_watch(an_event("ADDED", a_namespace("b", "101")), an_error(410, "too old resource version")),
        2,
    ),
}


@pytest.mark.parametrize(("answer", "before"), EXPIRED.values(), ids=EXPIRED.keys())
def test_a_place_that_the_server_forgot_is_listed_again(answer: Answer, before: int) -> None:
    found, script = follow(a_list(A), answer, a_list(A, B, version="200"), ENDS, count=8 + before)
    assert found[3 + before].startswith("trouble ")
    assert "410 too old resource version" in found[3 + before]
    assert found[4 + before :] == ["started", "found a b", "listed 200", "watching"]
    assert asked(script) == ["list", "watch 100", "list", "watch 200"]


def test_a_list_that_lost_its_place_begins_anew_in_one_piece_and_only_that_one() -> None:
    script_of = [a_list(A, more="next"), a_failure(410), a_list(A, B), a_failure(410), a_list(B)]
    found, script = follow(*script_of, count=11)
    assert asked(script) == ["list", "list next", "whole list", "watch 100", "list", "watch 100"]
    assert [item for item in found if not item.startswith("trouble")] == [
        *["started", "found a"],
        *["started", "found a b", "listed 100"],
        *["started", "found b", "listed 100"],
        "watching",
    ]


MALFORMED = {
    "no JSON": b"{\n",
    "no event": b'{"type": "ADDED"}\n',
    "an unknown event": an_event("RENAMED", a_namespace("b", "101")),
    "no version": an_event("ADDED", {"metadata": {"name": "b"}}),
    "back in time": an_event("MODIFIED", a_namespace("b", "99")),
    "back in time after a bookmark": a_bookmark("120") + an_event("MODIFIED", a_namespace("b", "110")),
    "a failure without a code": an_event("ERROR", {}),
    "a failure of the server's": an_error(500, "etcd"),
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_stream_that_makes_no_sense_is_settled_by_a_new_list(line: bytes) -> None:
    found, script = follow(a_list(A), a_watch(line, 300.0), a_list(B), ENDS, count=8)
    assert found[4].startswith("trouble ")
    assert asked(script)[:3] == ["list", "watch 100", "list"]
    assert found[5:] == ["started", "found b", "listed 100"]


def test_the_same_event_twice_is_harmless() -> None:
    event = an_event("ADDED", a_namespace("b", "101"))
    found, script = follow(a_list(A), a_watch(event, event, 1.0, event, 300.0), count=7)
    assert found[4:] == ["happened ADDED:b", "happened ADDED:b", "happened ADDED:b"]
    assert asked(script) == ["list", "watch 100"]


KEEPS_ITS_PLACE = {
    "unreachable": UNREACHABLE,
    "too many requests": a_failure(429),
    "starting": a_failure(503),
    "ended at once": a_watch(),
}


@pytest.mark.parametrize("failure", KEEPS_ITS_PLACE.values(), ids=KEEPS_ITS_PLACE.keys())
def test_while_the_server_cannot_answer_the_place_is_kept(failure: Answer | Exception) -> None:
    _, script = follow(a_list(A), failure, failure, ENDS, count=8)
    assert asked(script)[:4] == ["list", "watch 100", "watch 100", "watch 100"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 500, 504])
def test_after_any_other_answer_the_place_is_in_doubt(code: int) -> None:
    """504: 'Too large resource version', when the cluster's store was restored from a backup."""
    _, script = follow(a_list(A), a_failure(code), a_list(A), ENDS, count=8)
    assert asked(script)[:4] == ["list", "watch 100", "list", "watch 100"]


def test_tries_come_ever_more_seldom() -> None:
    found, script = follow(*[UNREACHABLE] * 12, count=24)
    pauses = [after - before for before, after in itertools.pairwise(script.times)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15])
    assert set(found) == {"started", "trouble https://api.test: All connection attempts failed"}


def test_a_storm_of_410_does_not_become_a_storm_of_lists() -> None:
    storm = [answer for _ in range(6) for answer in (a_list(A), a_watch(an_error(410)))]
    _, script = follow(*storm, count=5 * 6)
    assert script.times[-1] == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6)


def test_a_server_that_is_back_but_forgot_the_place_is_asked_for_a_list_soon() -> None:
    _, script = follow(a_list(A), *[UNREACHABLE] * 9, a_failure(410), a_list(A), ENDS, count=17)
    pauses = [after - before for before, after in itertools.pairwise(script.times)]
    assert pauses[-3:] == pytest.approx([15, 0.1, 0])
    assert asked(script)[-2:] == ["list", "watch 100"]


def test_an_event_ends_the_trouble() -> None:
    fine = a_watch(a_bookmark("101"), 2.0)
    _, script = follow(*[UNREACHABLE] * 8, a_list(A), fine, UNREACHABLE, ENDS, count=22)
    assert script.times[-1] - script.times[-2] == pytest.approx(0.1)


def test_the_server_says_when_it_will_answer_again() -> None:
    _, script = follow(a_failure(429, retry_after="7"), a_list(A), count=4)
    assert script.times == [0, 7]


def test_a_server_that_falls_silent_is_given_up_on() -> None:
    """By the transport, which is told for how long."""
    _, script = follow(a_list(A), ENDS, count=4)
    listing, watching = script.timeouts
    assert (listing["connect"], listing["read"]) == (10, 30)
    assert (watching["connect"], watching["read"]) == (10, 120)
