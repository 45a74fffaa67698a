"""What stands behind a service, what names lead to, and the rules of the kube-proxy stand-in. No kernel."""

from __future__ import annotations

from ambient.lab import endpoints, kubeproxy, names
from ambient.lab.cluster import target
from tests.lab.builders import a_namespace, a_node, a_pod, a_service, applied, with_status

PORTS = {"container": {"ports": [{"name": "http", "containerPort": 9000}]}}


def test_a_service_leads_to_ready_pods_of_its_family_by_the_pods_port() -> None:
    objects = applied(
        a_node(), a_namespace(), a_pod(**PORTS), a_service(target="http", ipFamilyPolicy="PreferDualStack")
    )
    objects = with_status(objects, "web", "10.244.1.2", "fd00::2")
    found = list(endpoints.service_ports(objects, "node1"))
    assert [[(str(ip), port) for ip, port in row.backends] for row in found] == [
        [("10.244.1.2", 9000)],
        [("fd00::2", 9000)],
    ]


def test_a_pod_that_is_not_ready_is_not_led_to_unless_asked_for() -> None:
    objects = applied(a_node(), a_namespace(), a_pod(), a_service())
    objects = with_status(objects, "web", "10.244.1.2", ready=False)
    assert [row.backends for row in endpoints.service_ports(objects, "node1")] == [()]
    objects = applied(a_service(publishNotReadyAddresses=True), to=objects)
    assert len(next(endpoints.service_ports(objects, "node1")).backends) == 1


def test_a_service_may_lead_to_its_callers_node_only() -> None:
    objects = applied(a_node(), a_namespace(), a_pod(), a_service(internalTrafficPolicy="Local"))
    objects = with_status(objects, "web", "10.244.1.2")
    assert [len(row.backends) for row in endpoints.service_ports(objects, "node1")] == [1]
    assert [len(row.backends) for row in endpoints.service_ports(objects, "node2")] == [0]


def test_a_pod_without_the_named_port_is_left_out() -> None:
    objects = with_status(applied(a_node(), a_namespace(), a_pod(), a_service(target="http")), "web", "10.244.1.2")
    assert [row.backends for row in endpoints.service_ports(objects, "node1")] == [()]


def test_names_are_short_in_ones_own_namespace_only() -> None:
    objects = applied(a_node(), a_namespace(), a_namespace("bank"), a_pod(), a_service(), a_service(namespace="bank"))
    objects = with_status(objects, "web", "10.244.1.2")
    lines = names.hosts(objects, objects[target("pod/shop/web")]).splitlines()
    assert "10.96.0.10 web.shop.svc.cluster.local web.shop.svc web.shop web" in lines
    assert "10.96.0.11 web.bank.svc.cluster.local web.bank.svc web.bank" in lines
    assert "10.244.1.2 web" in lines


def test_a_headless_name_leads_to_the_pods_themselves() -> None:
    objects = applied(a_node(), a_namespace(), a_pod(), a_service(clusterIP="None"))
    objects = with_status(objects, "web", "10.244.1.2", "fd00::2")
    text = names.hosts(objects, objects[target("pod/shop/web")])
    assert "10.244.1.2 web.shop.svc.cluster.local web.shop.svc web.shop web\n" in text
    assert "fd00::2 web.shop.svc.cluster.local" in text


def test_the_ruleset_replaces_the_table_and_has_no_rule_for_a_service_without_pods() -> None:
    objects = applied(a_node(), a_namespace(), a_pod(), a_service(), a_service("empty"))
    objects = with_status(objects, "web", "10.244.1.2")
    text = kubeproxy.ruleset(endpoints.service_ports(objects, "node1"))
    assert text.startswith("table inet ambient-lab-services {}\ndelete table inet ambient-lab-services\n")
    assert "ip daddr 10.96.0.10 tcp dport 80 dnat ip to numgen random mod 1 map { 0 : 10.244.1.2 . 8080 }" in text
    assert "10.96.0.11" not in text
