"""The access record, its label in the engine, and Istio's flags. Pure."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.model.mesh import Identity, Locality, Workload, address
from ambient.observe import flags, label
from ambient.observe.records import Ending, Flow, Form, Party, record

CLIENT = Party(
    workload="client-7d9f-x", namespace="shop", service_account="client", principal="cluster.local/ns/shop/sa/client",
    address="10.1.0.2", owner="client", app="client", version="v1", region="eu", zone="eu-a",
)  # fmt: skip
FLOW = Flow(
    reporter="destination", source=CLIENT, destination=Party(workload="web-1", namespace="shop", owner="web"),
    service="web.shop.svc.cluster.local", rule="AuthorizationPolicy shop/web rule 0", path="tunnel",
    security="mutual_tls",
)  # fmt: skip
ENDING = Ending(
    connection="18f-1", source="10.1.0.2:41234", destination="10.96.0.10:80", dialled="10.2.0.3:8080",
    started_ns=1_700_000_000_123_000_000, duration_ns=1_500_000_000, setup_ns=2_345_678, sent=10, received=2000,
)  # fmt: skip


def test_a_record_says_who_reached_whom_and_why_it_was_let_in() -> None:
    found = record(FLOW, ENDING)
    assert found["time"] == "2023-11-14T22:13:21.623Z"
    assert found["start"] == "2023-11-14T22:13:20.123Z"
    assert found["source_principal"] == "spiffe://cluster.local/ns/shop/sa/client"
    assert found["destination_principal"] == ""
    assert found["source_workload"] == "client"
    assert found["source_pod"] == "client-7d9f-x"
    assert found["rule"] == "AuthorizationPolicy shop/web rule 0"
    assert (found["bytes_sent"], found["bytes_received"]) == (10, 2000)
    assert (found["duration_ms"], found["setup_ms"]) == (1500.0, 2.346)
    assert found["response_flags"] == "-"


def test_a_connection_that_was_never_set_up_has_no_setup_time() -> None:
    assert record(FLOW, Ending(connection="1"))["setup_ms"] is None


def test_a_record_with_endless_text_still_fits_one_atomic_write() -> None:
    found = record(FLOW, Ending(connection="1", text="x" * 100_000))
    assert len(json.dumps(found)) < 4096


def test_a_party_takes_names_from_the_workload_and_identity_from_the_proof_alone() -> None:
    pod = Workload(
        namespace="shop", name="web-1", uid="u", node="a", service_account="web", addresses=(address("10.0.0.1"),),
        labels={"app": "web", "version": "v2"}, owner="web", locality=Locality("eu", "eu-a"),
    )  # fmt: skip
    unproven, proven = Party.of(pod), Party.of(pod, Identity("cluster.local", "shop", "web"), "10.0.0.9")
    assert unproven.principal == ""
    assert unproven.address == "10.0.0.1"
    assert (unproven.app, unproven.version, unproven.zone) == ("web", "v2", "eu-a")
    assert proven.principal == "cluster.local/ns/shop/sa/web"
    assert proven.address == "10.0.0.9"


def test_a_party_without_workload_keeps_what_its_certificate_says() -> None:
    found = Party.of(None, Identity("cluster.local", "shop", "web"), "192.0.2.1")
    assert (found.namespace, found.service_account, found.workload) == ("shop", "web", "")


def test_a_label_brings_the_flow_back() -> None:
    assert Flow.from_label(FLOW.to_label()) == FLOW


def test_a_usual_label_takes_less_than_half_of_its_room() -> None:
    assert len(FLOW.to_label()) < label.MAX // 2


def test_a_principal_that_is_not_its_partys_own_name_is_kept_as_it_is() -> None:
    flow = Flow(reporter="source", source=Party(namespace="a", principal="other.domain/ns/b/sa/c"))
    assert Flow.from_label(flow.to_label()) == flow


texts = st.text(max_size=400)
parties = st.builds(Party, **dict.fromkeys(Party.__slots__, texts))  # type: ignore[arg-type]
flows = st.builds(
    Flow, reporter=st.sampled_from(["source", "destination"]), source=parties, destination=parties, service=texts,
    verdict=st.sampled_from(["allow", "deny"]), rule=texts, reason=texts,
    path=st.sampled_from(["tunnel", "plaintext", "direct", "none"]),
    security=st.sampled_from(["mutual_tls", "unknown"]),
)  # fmt: skip


@given(flows, texts, st.integers(0, 2**63), st.integers(0, 2**40))
def test_a_filled_form_is_the_record_in_json(flow: Flow, text: str, moment: int, duration: int) -> None:
    ending = ENDING._replace(text=text, started_ns=moment, duration_ns=duration, setup_ns=duration // 2)
    line = Form(flow).fill(flow, ending)
    assert line.endswith(b"}\n")
    assert json.loads(line, object_pairs_hook=list) == list(record(flow, ending).items())


@given(flows)
def test_any_flow_fits_its_label_and_what_is_read_back_is_it_or_a_shortened_it(flow: Flow) -> None:
    data = flow.to_label()
    assert len(data) <= label.MAX
    back = Flow.from_label(data)
    assert (back.verdict, back.path, back.security, back.reporter) == (
        flow.verdict, flow.path, flow.security, flow.reporter,
    )  # fmt: skip
    assert back.rule == flow.rule or back.rule.endswith(label.MARK)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b"7", b"null", b"[2]", FLOW.to_label()[:-1], FLOW.to_label() + b"]",
     FLOW.to_label().replace(b"[1,", b"[2,", 1), FLOW.to_label().replace(b'"client"', b"7", 1),
     b'[1,9,[],[],"","","",0,0,0]', b'[1,0,7,[],"","","",0,0,0]'],
)  # fmt: skip
def test_what_is_no_label_is_a_value_error_that_shows_it(data: bytes) -> None:
    with pytest.raises(ValueError, match="no label of a flow"):
        Flow.from_label(data)


@pytest.mark.parametrize(
    ("verdict", "denied", "ended", "error", "expected"),
    [
        pytest.param("allow", "", "closed", 0, "-", id="an ordinary end"),
        pytest.param("deny", "denied_by_policy", "refused", 0, "DENY", id="policy"),
        pytest.param("deny", "no_healthy_endpoint", "refused", 0, "UH", id="no endpoint"),
        pytest.param("deny", "not_in_registry", "refused", 0, "NR", id="registry only"),
        pytest.param("deny", "source_mismatch", "refused", 0, "IDENTITY_ERROR", id="another's certificate"),
        pytest.param("deny", "handshake", "handshake", 0, "TLS_FAILURE", id="handshake, told as a refusal"),
        pytest.param("allow", "", "handshake", 0, "TLS_FAILURE", id="handshake"),
        pytest.param("allow", "", "dial", 111, "CONNECT", id="dial"),
        pytest.param("allow", "", "peer_refused", 401, "DENY", id="the peer's policy"),
        pytest.param("allow", "", "peer_refused", 503, "CONNECT", id="the peer's upstream"),
        pytest.param("allow", "", "cut", 0, "DENY", id="cut"),
        pytest.param("allow", "", "a_reason_of_tomorrow", 0, "LR", id="unknown to us"),
    ],
)  # fmt: skip
def test_flags_are_the_words_istio_has(verdict: str, denied: str, ended: str, error: int, expected: str) -> None:
    assert flags.of(verdict, denied, ended, error) == expected
