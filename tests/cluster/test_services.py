"""Pods of both nodes talk to each other: by address, through kube-proxy's services, by names from the cluster's DNS."""

from __future__ import annotations

import pytest

from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@FAMILIES
@pytest.mark.parametrize("server", ["web-1", "web-2"])
def test_a_pod_reaches_another_and_is_seen_under_its_own_address(shop: Space, server: str, family: int) -> None:
    index = family == 6
    with shop.puppet("client") as client:
        who = client.ask(shop.ips(server)[index], 8080).who
    assert who["pod"] == server
    assert who["peer"].rpartition(":")[0].strip("[]") == shop.ips("client")[index]


@FAMILIES
def test_a_cluster_ip_leads_to_the_pods_of_both_nodes(shop: Space, family: int) -> None:
    with shop.puppet("client") as client:
        answers = {client.ask("web", 80, family=family).who["pod"] for _ in range(40)}
    assert answers == {"web-1", "web-2"}


@FAMILIES
def test_a_headless_service_is_its_pods_addresses(shop: Space, family: int) -> None:
    found = shop.exec("client", "getent", f"ahostsv{family}", "web-headless")
    assert {line.split()[0] for line in found.splitlines()} == {
        shop.ips(server)[family == 6] for server in ("web-1", "web-2")
    }


def test_a_pod_reaches_the_api_server_with_its_own_account(shop: Space) -> None:
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    url = "https://kubernetes.default.svc/api/v1/namespaces/shop/pods"
    script = f'curl -s --cacert {account}/ca.crt -H "authorization: bearer $(cat {account}/token)" {url}'
    said = shop.exec("client", "sh", "-c", script)
    assert 'User \\"system:serviceaccount:shop:default\\" cannot list resource' in said
