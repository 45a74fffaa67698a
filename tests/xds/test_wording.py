"""What many streams say of one state is made once, and each says it as its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from ambient.xds import wording
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import Resource
from ambient.xds.wording import Wording

from .transcripts import THING, Things, things


@dataclass(frozen=True)
class Watched(Things):
    """Knows how often it was asked."""

    asked: list[str] = field(default_factory=list)

    def table(self, type_url: str) -> dict[str, Resource]:
        self.asked.append(type_url)
        return dict(super().table(type_url))


def read(body: bytes) -> pb.DeltaDiscoveryResponse:
    return pb.DeltaDiscoveryResponse.FromString(body)


def test_a_response_has_its_own_nonce_and_everything_else() -> None:
    found = read(Wording("us").response(things(a="1"), THING, ("a", "gone"), "c0ffee", more=True))
    assert (found.nonce, found.type_url, found.system_version_info) == ("c0ffee", THING, "r")
    assert (found.control_plane.identifier, found.more) == ("us", True)
    assert ([each.name for each in found.resources], [*found.removed_resources]) == (["a"], ["gone"])


def test_the_same_news_are_made_once_for_everybody() -> None:
    words, state = Wording(), Watched(things(a="1", b="1").tables)
    said = [words.response(state, THING, ("a",), f"{number:x}", more=False) for number in range(1, 101)]
    assert len(state.asked) == 1
    assert [int(read(body).nonce, 16) for body in said] == [*range(1, 101)]
    other = [
        words.response(state, THING, ("b",), "1", more=False),
        words.response(state, THING, ("a",), "1", more=True),
    ]
    assert [([each.name for each in read(body).resources], read(body).more) for body in other] == [
        (["b"], False),
        (["a"], True),
    ]


def test_another_state_is_told_anew() -> None:
    words = Wording()
    for version in ("1", "2"):
        (found,) = read(words.response(things(a=version), THING, ("a",), "1", more=False)).resources
        assert found.version == version


def test_what_is_long_is_not_remembered() -> None:
    names = tuple(f"n{number}" for number in range(wording.SHARED_NAMES + 1))
    words, state = Wording(), Watched(things(**dict.fromkeys(names, "1")).tables)
    for _ in range(2):
        assert len(read(words.response(state, THING, names, "1", more=False)).resources) == len(names)
    assert len(state.asked) == 2
