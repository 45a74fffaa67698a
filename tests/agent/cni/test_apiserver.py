"""The API server is asked with the pod's own credentials, and only what it says itself is an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.cni.apiserver import ApiServer

from . import api


def test_it_asks_with_the_pods_own_credentials(tmp_path: Path) -> None:
    with api.serving(tmp_path) as server:
        server.set("/there", 200, {"metadata": {"name": "x"}})
        asking = ApiServer(tmp_path)
        assert asking.get("/there") == (200, {"metadata": {"name": "x"}})
        assert asking.get("/elsewhere") == (401, {})
        asking.close()
    assert server.asked == [("/there", "Bearer secret"), ("/elsewhere", "Bearer secret")]


def test_an_answer_that_is_no_json_is_nobodys(tmp_path: Path) -> None:
    with api.serving(tmp_path) as server:
        server.answers["/there"] = 200, b"<html>"
        asking = ApiServer(tmp_path)
        with pytest.raises(OSError, match="/there"):
            asking.get("/there")


def test_a_server_of_another_ca_is_not_asked(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with api.serving(other), api.serving(tmp_path) as server:
        (tmp_path / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        with pytest.raises(OSError, match="certificate verify failed"):
            ApiServer(tmp_path).get("/there")
    assert server.asked == []


def test_a_watch_tells_until_the_server_ends_it(tmp_path: Path) -> None:
    with api.serving(tmp_path) as server:
        for event in ({"type": "ADDED", "object": {"a": 1}}, {"type": "DELETED", "object": {}}, None):
            server.events.put(event)
        assert list(ApiServer(tmp_path).watch("/c", "x", "7")) == [("ADDED", {"a": 1}), ("DELETED", {})]
    assert server.asked[0][0].startswith("/c?watch=1&fieldSelector=metadata.name%3Dx&resourceVersion=7&timeoutSeconds=")


def test_an_event_that_is_none_ends_the_watch(tmp_path: Path) -> None:
    with api.serving(tmp_path) as server:
        server.events.put({"kind": "Status"})
        with pytest.raises(OSError, match="watching /c/x"):
            list(ApiServer(tmp_path).watch("/c", "x", "7"))


def test_outside_of_a_pod_there_is_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(OSError, match="this is no pod"):
        ApiServer(tmp_path)
