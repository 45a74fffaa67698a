"""Questions and their labels: what a new agent must be able to read of an old one."""

from __future__ import annotations

import pytest

from ambient.dataplane.questions import Outbound, Peer, Plaintext, Question, Request, label, read_label
from ambient.observe.records import Flow, Party
from tests.dataplane.worlds import CLIENT, CLIENT_IP, WEB_IP

QUESTIONS: list[Question] = [
    Outbound("shop/client", "u1", 100, WEB_IP, 80),
    Plaintext("shop/web", "u2", CLIENT_IP, WEB_IP, 8080),
    Peer("shop/web", "u2", False, CLIENT_IP, CLIENT),
    Request("shop/web", "u2", CLIENT, CLIENT_IP, WEB_IP, 8080, "web.shop.svc.cluster.local"),
]
FLOW = Flow(reporter="source", source=Party(workload="client"), verdict="allow", rule="no policy")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_a_label_gives_back_question_and_flow(question: Question) -> None:
    assert read_label(label(question, FLOW)) == (question, FLOW)


def test_a_label_from_before_a_field_that_only_the_record_needs_is_still_judged() -> None:
    asked = Request("shop/web", "u2", CLIENT, CLIENT_IP, WEB_IP, 8080)
    older = label(asked, FLOW).replace(b',8080,""]', b",8080]", 1)
    assert older != label(asked, FLOW)
    assert read_label(older) == (asked, FLOW)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_a_label_of_a_later_agent_is_judged_by_what_is_known_of_it(question: Question) -> None:
    head, _, flow = label(question, FLOW).partition(b"\n")
    later = head[:-1] + b',"more"]\n' + flow.replace(b"]", b',"more"]')
    assert read_label(later) == (question, FLOW)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_a_label_stays_small_however_long_names_are(question: Question) -> None:
    flow = Flow(reporter="source", source=Party(workload="w" * 253), rule="r" * 5000)
    assert len(label(question, flow)) < 2048


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"[]",
        b'["outbound"]\n{}',
        b'["nothing","a"]\n{}',
        b"\xff\xfe\n",
        b'["outbound","a","b",1,"c",2]\n{}',
    ],
    ids=["empty", "no question", "no flow", "too few", "unknown kind", "no text", "no address"],
)
def test_a_label_of_another_version_is_refused_in_words(raw: bytes) -> None:
    with pytest.raises(ValueError, match="is not of this version"):
        read_label(raw)
