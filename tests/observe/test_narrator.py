"""The tracer's events in words."""

from __future__ import annotations

import pytest

from ambient.observe.narrator import Names, tell

NAMES = Names(
    pods={"10.0.0.2": "shop/client", "10.0.1.2": "shop/web"},
    services={"10.96.0.1": "web.shop"},
    cgroups={77: "shop/client"},
    resets={"1": "NO_SOCKET", "20": "MPTCP_RST_EPROHIBIT"},
)
CLIENT, WEB, VIP, APP = ("10.0.0.2", 4000), ("10.0.1.2", 8080), ("10.96.0.1", 80), ("10.0.1.2", 41000)
TUNNEL = ("10.0.1.2", 15008)


def an_event(event: str, source: tuple[str, int], destination: tuple[str, int], **more: object) -> dict[str, object]:
    given = {"age_ns": 0, "pid": 0, "comm": "", "cgroup": 0, "detail": 0, "more": 0, "at_ns": 1, "sock": "a"}
    ends = dict(zip(("source", "source_port", "destination", "destination_port"), source + destination, strict=True))
    return {"event": event, **given, **ends, **more}


def a_change(old: int, new: int, source: tuple[str, int], destination: tuple[str, int], **more: object) -> object:
    return an_event("state", source, destination, detail=old, more=new, **more)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        pytest.param(
            a_change(7, 2, CLIENT, VIP, pid=9, comm="curl"),
            "shop/client [curl 9] connects to web.shop (10.96.0.1:80)",
            id="connect",
        ),
        pytest.param(
            a_change(7, 2, CLIENT, TUNNEL, pid=9, comm="engine"),
            "shop/client [engine 9] opens a tunnel to shop/web (10.0.1.2:15008)",
            id="tunnel",
        ),
        pytest.param(
            a_change(7, 2, APP, WEB, pid=9, comm="engine"),
            "in shop/web [engine 9] dials the app: shop/web (10.0.1.2:8080)",
            id="the mesh dials the app",
        ),
        pytest.param(
            a_change(2, 1, CLIENT, VIP, age_ns=210_000),
            "shop/client (10.0.0.2:4000) is connected to web.shop (10.96.0.1:80): handshake took 0.21 ms",
            id="handshake",
        ),
        pytest.param(
            a_change(2, 7, CLIENT, VIP, age_ns=3_100_000_000),
            "shop/client (10.0.0.2:4000) could not connect to web.shop (10.96.0.1:80): gave up after 3.1 s",
            id="failed",
        ),
        pytest.param(
            a_change(3, 1, VIP, CLIENT),
            "lookup gave shop/client (10.0.0.2:4000)'s connection to web.shop (10.96.0.1:80) to the mesh",
            id="lookup",
        ),
        pytest.param(
            a_change(3, 1, TUNNEL, CLIENT),
            "shop/web (10.0.1.2:15008) accepts a tunnel from shop/client (10.0.0.2:4000)",
            id="tunnel accepted",
        ),
        pytest.param(
            a_change(3, 1, WEB, APP),
            "shop/web (10.0.1.2:8080) accepts the connection the mesh brings",
            id="app accepts",
        ),
        pytest.param(
            a_change(3, 1, WEB, CLIENT),
            "shop/web (10.0.1.2:8080) accepts shop/client (10.0.0.2:4000)",
            id="accepted",
        ),
        pytest.param(a_change(7, 10, WEB, ("0.0.0.0", 0)), "shop/web (10.0.1.2:8080) listens", id="listens"),
        pytest.param(a_change(10, 7, WEB, ("0.0.0.0", 0)), "shop/web (10.0.1.2:8080) stops listening", id="stops"),
        pytest.param(
            a_change(1, 4, CLIENT, VIP),
            "shop/client (10.0.0.2:4000) has finished sending to web.shop (10.96.0.1:80)",
            id="half-close",
        ),
        pytest.param(
            a_change(1, 8, CLIENT, VIP),
            "shop/client (10.0.0.2:4000) has got all that web.shop (10.96.0.1:80) sends",
            id="half-closed by the other",
        ),
        pytest.param(
            a_change(9, 7, CLIENT, VIP, age_ns=1_500_000),
            "shop/client (10.0.0.2:4000) and web.shop (10.96.0.1:80) are done, 1.50 ms after they connected",
            id="closed",
        ),
        pytest.param(a_change(4, 5, CLIENT, VIP), "", id="a change that says nothing new"),
        pytest.param(
            an_event("reset_sent", WEB, CLIENT, more=1),
            "shop/web (10.0.1.2:8080) sends a reset to shop/client (10.0.0.2:4000): nobody listens there",
            id="reset with a reason we have words for",
        ),
        pytest.param(
            an_event("reset_sent", WEB, CLIENT, more=20),
            "shop/web (10.0.1.2:8080) sends a reset to shop/client (10.0.0.2:4000): mptcp rst eprohibit",
            id="reset with a reason of the kernel's",
        ),
        pytest.param(
            an_event("reset_sent", WEB, CLIENT, more=99),
            "shop/web (10.0.1.2:8080) sends a reset to shop/client (10.0.0.2:4000)",
            id="reset without a reason",
        ),
        pytest.param(
            an_event("reset_seen", CLIENT, ("2001:db8::1", 1)),
            "shop/client (10.0.0.2:4000) got a reset from [2001:db8::1]:1",
            id="reset seen",
        ),
        pytest.param(
            an_event("retransmit", CLIENT, VIP, detail=2),
            "shop/client (10.0.0.2:4000) sends its SYN to web.shop (10.96.0.1:80) again: no answer in time",
            id="SYN again",
        ),
        pytest.param(
            an_event("connect_refused", ("::", 0), VIP, detail=1, cgroup=77, pid=9, comm="curl"),
            "shop/client [curl 9] may not connect to web.shop (10.96.0.1:80): "
            "not permitted: a cgroup hook refused it, such as Ambient's",
            id="refused by the hook",
        ),
        pytest.param(
            an_event("connect_refused", ("::", 0), VIP, detail=1, cgroup=78), "", id="refused to somebody else"
        ),
        pytest.param({"event": "lost", "more": 7}, "7 events were lost: more came than could be written", id="lost"),
    ],
)
def test_an_event_in_words(event: dict[str, object], line: str) -> None:
    assert tell(NAMES, event) == line
