"""The API through lightkube: what is sent, what comes back, and that its errors are ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from ambient.control import api
from ambient.control.api import ApiError, LightkubeApi, Patch

from .apiserver import ApiServer

MAP = {"metadata": {"namespace": "mesh", "name": "m"}, "data": {"a": "1"}}


def with_server(test: Callable[[ApiServer, LightkubeApi], Awaitable[None]]) -> None:
    server = ApiServer()

    async def main() -> None:
        await test(server, server.api())

    asyncio.run(main())


def test_an_object_is_made_once_read_and_replaced_by_who_read_it_last() -> None:
    async def test(_: ApiServer, k8s: LightkubeApi) -> None:
        made = await k8s.create(api.CONFIG_MAP, MAP)
        assert (await k8s.get(api.CONFIG_MAP, "mesh", "m"))["data"] == {"a": "1"}
        with pytest.raises(ApiError, match="already exists") as again:
            await k8s.create(api.CONFIG_MAP, MAP)
        assert again.value.status == api.CONFLICT
        await k8s.replace(api.CONFIG_MAP, {**made, "data": {"a": "2"}})
        with pytest.raises(ApiError, match="cannot replace ConfigMap mesh/m") as stale:
            await k8s.replace(api.CONFIG_MAP, {**made, "data": {"a": "3"}})
        assert stale.value.status == api.CONFLICT

    with_server(test)


def test_what_is_not_there_is_said_so() -> None:
    async def test(_: ApiServer, k8s: LightkubeApi) -> None:
        with pytest.raises(ApiError, match="cannot get Secret mesh/s") as missing:
            await k8s.get(api.SECRET, "mesh", "s")
        assert missing.value.status == api.NOT_FOUND

    with_server(test)


def test_fields_that_nobody_here_knows_survive() -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        server.put("leases", {"metadata": {"namespace": "mesh", "name": "l"}, "spec": {"strategy": {"of": "tomorrow"}}})
        lease = await k8s.get(api.LEASE, "mesh", "l")
        lease["spec"]["holderIdentity"] = "me"
        await k8s.replace(api.LEASE, lease)
        assert server.get("leases", "mesh", "l")["spec"] == {"strategy": {"of": "tomorrow"}, "holderIdentity": "me"}

    with_server(test)


def test_apply_makes_what_is_not_there_and_changes_what_is() -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        await k8s.patch(api.CONFIG_MAP, MAP, Patch.APPLY)
        await k8s.patch(api.CONFIG_MAP, {**MAP, "data": {"a": "2"}}, Patch.APPLY)
        assert server.get("configmaps", "mesh", "m")["data"] == {"a": "2"}

    with_server(test)


def test_a_merge_is_for_the_object_of_that_uid_only() -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        server.put("pods", {"metadata": {"namespace": "shop", "name": "web", "uid": "first"}, "spec": {}})
        named = {"namespace": "shop", "name": "web"}
        await k8s.patch(api.POD, {"metadata": {**named, "uid": "first", "annotations": {"a": "b"}}}, Patch.MERGE)
        with pytest.raises(ApiError) as other:
            await k8s.patch(api.POD, {"metadata": {**named, "uid": "second", "annotations": {"a": "c"}}}, Patch.MERGE)
        assert other.value.status == api.INVALID
        assert server.get("pods", "shop", "web")["metadata"]["annotations"] == {"a": "b"}

    with_server(test)


def test_a_status_is_written_by_its_own_door() -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        policies = api.Kind("AuthorizationPolicy", "authorizationpolicies", "ambient.dev/v1alpha1")
        server.put("authorizationpolicies", {"metadata": {"namespace": "shop", "name": "p"}, "spec": {"x": 1}})
        body = {"metadata": {"namespace": "shop", "name": "p"}, "spec": {"x": 2}, "status": {"ok": True}}
        await k8s.patch(policies, body, Patch.MERGE, status=True)
        found = server.get("authorizationpolicies", "shop", "p")
        assert (found["spec"], found["status"]) == ({"x": 1}, {"ok": True})
        assert server.requests[-1] == "PATCH authorizationpolicies shop/p/status"

    with_server(test)


def test_a_watch_tells_what_happens_from_a_version_on() -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        made = server.put("configmaps", MAP)
        async with contextlib.aclosing(
            k8s.watch(api.CONFIG_MAP, "mesh", "m", made["metadata"]["resourceVersion"])
        ) as events:
            server.put("configmaps", {**MAP, "data": {"a": "2"}})
            server.delete("configmaps", "mesh", "m")
            assert [(await anext(events))[0] for _ in range(2)] == ["MODIFIED", "DELETED"]

    with_server(test)


@pytest.mark.parametrize("status", [0, 503], ids=["no connection", "unavailable"])
def test_trouble_says_what_was_tried(status: int) -> None:
    async def test(server: ApiServer, k8s: LightkubeApi) -> None:
        with server.trouble("GET", "secrets", status=status), pytest.raises(ApiError, match="cannot get Secret") as e:
            await k8s.get(api.SECRET, "mesh", "s")
        assert e.value.status == status

    with_server(test)


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(502, text="<html>", headers={"content-type": "text/html"}),
        httpx2.Response(500),
        httpx2.Response(200, text='{"metadata": {'),
    ],
    ids=["a proxy's page", "nothing", "cut"],
)
def test_an_answer_that_is_no_api_servers_is_our_error_too(answer: httpx2.Response) -> None:
    async def main() -> None:
        async def respond(request: httpx2.Request) -> httpx2.Response:
            answer.request = request
            return answer

        server = ApiServer()
        server.handle_async_request = respond  # type: ignore[method-assign]
        with pytest.raises(ApiError, match="cannot get Secret mesh/s"):
            await server.api().get(api.SECRET, "mesh", "s")

    asyncio.run(main())


@pytest.mark.parametrize(
    "kubeconfig",
    [
        None,
        "{}",
        "{current-context: a, contexts: [{name: a, context: {cluster: c}}], clusters: [{name: c, cluster: {server: x}}]"
        "}",
    ],
    ids=["missing", "empty", "without a user"],
)
def test_a_cluster_that_nobody_named_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kubeconfig: str | None
) -> None:
    if kubeconfig is not None:
        (tmp_path / "kubeconfig").write_text(kubeconfig)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ApiError, match=r"no API server to talk to|names no user"):
        api.connect()
