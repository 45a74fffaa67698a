"""A replica's pages: what it waits for, and what Prometheus finds."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ambient.control.pages import Pages
from ambient.identity.issuer import IssuingFailed
from ambient.model.mesh import Identity

from .replicas import Node, Replica, an_api, replicas

WEB, DB = Identity("cluster.local", "shop", "web"), Identity("cluster.local", "shop", "db")


async def samples(replica: Replica) -> dict[str, float]:
    text = (await Pages(replica.control).metrics()).body
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value for sample in found}


def test_readiness_names_what_is_waited_for() -> None:
    async def main() -> None:
        api = an_api()
        api.cluster.failing["pods"] = 403
        async with replicas(api, "one", serving=False) as (one,):
            pages = Pages(one.control)
            await one.until(lambda: "pods is forbidden" in str(one.control.not_ready))
            page = await pages.ready()
            assert page.status == HTTPStatus.INTERNAL_SERVER_ERROR
            assert "waiting for:\n  first-world\n" in page.body
            assert (await pages.live()).status == HTTPStatus.OK
            assert (await samples(one))["ambient_control_ready"] == 0
            api.cluster.failing.clear()
            await one.until(lambda: not one.control.not_ready)
            assert (await pages.ready()).body == "ready\n"

    asyncio.run(main())


def test_metrics_tell_of_agents_certificates_callers_and_the_ca(tmp_path: Path) -> None:
    async def main() -> None:
        api = an_api()
        async with replicas(api, "one") as (one,):
            await one.until(lambda: ("configmaps", "ambient-system", "ambient-root") in api.server.objects)
            node, stranger = Node(tmp_path, api, "node-1", one), Node(tmp_path, api, "node-2", one, token="a.b.c")
            node.mount()
            stranger.mount()
            async with node:
                await node.has("shop/web")
                await node.issue(WEB)
                for each, identity in ((node, DB), (stranger, DB)):
                    with pytest.raises(IssuingFailed):
                        await each.issue(identity)
                found = await samples(one)
        wanted = {
            "ambient_control_ready": 1,
            "ambient_control_leader": 1,
            "ambient_control_agents": 1,
            "ambient_control_nacks_total": 0,
            "ambient_control_certificates_total{issued}": 1,
            "ambient_control_certificates_total{not_on_node}": 1,
            "ambient_control_callers_refused_total{bad_token}": 1,
            "ambient_control_ca_ends_seconds": api.authority().signer.certificate.not_valid_after_utc.timestamp(),
            "ambient_control_objects{workload}": 4,
            "ambient_control_source_errors": 0,
        }
        assert {name: found.get(name) for name in wanted} == wanted

    asyncio.run(main())
