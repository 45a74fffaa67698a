"""decide() against a second reading of the same rules, written the naive way from the reference's text."""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase

from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh, policy
from ambient.model.mesh import Action, Match, Rule

from .builders import IP, ROOT, a_pod, a_policy, a_world

SERVER = a_pod("shop/web", "10.1.0.1", labels={"app": "web"})
CLIENTS = [
    a_pod("front/cart-1", "10.1.0.2", service_account="cart"),
    a_pod("back/cart-1", "10.1.0.3", service_account="cart"),
    a_pod("shop/job-1", "fd00::4", service_account="job"),
]
TEXTS = ["*", "front", "back", "shop", "f*", "*k", "*sho*"]
PRINCIPALS = ["*", "cluster.local/ns/front/sa/cart", "cluster.local/ns/*", "*/sa/cart", "x*"]
ACCOUNTS = ["front/cart", "back/cart", "shop/job", "cart"]
BLOCKS = [ipaddress.ip_network(text) for text in ("10.1.0.0/30", "10.1.0.2/32", "0.0.0.0/0", "fd00::/8", "10.2.0.0/16")]
PORTS = [80, 8080]


def few(values: list) -> st.SearchStrategy[tuple]:
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


MATCHES = st.builds(
    Match,
    principals=few(PRINCIPALS),
    not_principals=few(PRINCIPALS),
    namespaces=few(TEXTS),
    not_namespaces=few(TEXTS),
    service_accounts=few(ACCOUNTS),
    not_service_accounts=few(ACCOUNTS),
    source_ips=few(BLOCKS),
    not_source_ips=few(BLOCKS),
    destination_ips=few(BLOCKS),
    not_destination_ips=few(BLOCKS),
    destination_ports=few(PORTS),
    not_destination_ports=few(PORTS),
)
# most fields empty, or hardly anything would ever match
SPARSE = st.one_of(
    st.just(Match()),
    *(
        st.builds(Match, **{name: few(values)})
        for name, values in [
            ("principals", PRINCIPALS),
            ("not_principals", PRINCIPALS),
            ("namespaces", TEXTS),
            ("not_namespaces", TEXTS),
            ("service_accounts", ACCOUNTS),
            ("source_ips", BLOCKS),
            ("not_source_ips", BLOCKS),
            ("destination_ports", PORTS),
        ]
    ),
    MATCHES,
)
RULES = st.builds(
    Rule,
    clauses=st.lists(st.lists(SPARSE, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
    needs_l7=st.booleans(),
)
POLICIES = st.lists(
    st.builds(
        lambda where, rules, **more: a_policy(where + "/p", *rules, **more),
        st.sampled_from(["shop", ROOT, "back"]),
        st.lists(RULES, max_size=2),
        action=st.sampled_from(Action),
        selector=st.sampled_from([{}, {"app": "web"}, {"app": "db"}]),
        dry_run=st.booleans(),
        targets=st.sampled_from([(), (), ("Service/web",)]),
    ),
    max_size=4,
    unique_by=lambda written: written.key,
)


def glob(pattern: str, text: str) -> bool:
    """A star counts only as the first or the last character, and only one of them."""
    if pattern == "*":
        return bool(text)
    literal = pattern.replace("*", "[*]")
    if pattern[0] == "*":
        literal = "*" + pattern[1:].replace("*", "[*]")
    elif pattern[-1] == "*":
        literal = pattern[:-1].replace("*", "[*]") + "*"
    return bool(text) and fnmatchcase(text, literal)


def naive(policies: list[mesh.AuthorizationPolicy], client: mesh.Workload, named: bool, port: int) -> bool:
    identity = client.identity("cluster.local") if named else None
    facts = {
        "principals": str(identity).removeprefix("spiffe://") if identity else "",
        "namespaces": identity.namespace if identity else "",
        "service_accounts": f"{identity.namespace}/{identity.service_account}" if identity else "",
        "source_ips": client.addresses[0],
        "destination_ips": IP("10.1.0.1"),
        "destination_ports": port,
    }

    def hit(name: str, value: object) -> bool:
        fact = facts[name]
        if name in ("principals", "namespaces"):
            return glob(value, fact)
        if name.endswith("_ips"):
            return fact in list_of(value, fact)
        return value == fact

    def list_of(block: mesh.IPNetwork, fact: mesh.IPAddress) -> object:
        return block if block.version == fact.version else ()

    def one(match: Match) -> bool:
        asked = {name: getattr(match, name) for name in Match.__dataclass_fields__}
        if not any(asked.values()):
            return False
        for name, values in asked.items():
            if name.startswith("not_"):
                if any(hit(name[4:], value) for value in values):
                    return False
            elif values and not any(hit(name, value) for value in values):
                return False
        return True

    def applies(written: mesh.AuthorizationPolicy) -> bool:
        here = written.namespace in ("shop", ROOT)
        return here and written.selector != {"app": "db"} and not written.targets and not written.dry_run

    def matched(written: mesh.AuthorizationPolicy) -> bool:
        rules = [rule for rule in written.rules if not (rule.needs_l7 and written.action is Action.ALLOW)]
        return any(all(any(one(match) for match in clause) for clause in rule.clauses) for rule in rules)

    relevant = [written for written in policies if applies(written)]
    if any(matched(written) for written in relevant if written.action is Action.DENY):
        return False
    allowing = [written for written in relevant if written.action is Action.ALLOW]
    return not allowing or any(matched(written) for written in allowing)


@settings(max_examples=100, deadline=None)
@given(POLICIES, st.sampled_from(CLIENTS), st.booleans(), st.sampled_from(PORTS))
def test_decide_agrees_with_a_naive_reading(
    policies: list[mesh.AuthorizationPolicy], client: mesh.Workload, named: bool, port: int
) -> None:
    world = a_world(SERVER, *CLIENTS, *policies)
    peer = client.identity("cluster.local") if named else None
    verdict = policy.decide(world, SERVER, peer=peer, source=client.addresses[0], to=IP("10.1.0.1"), port=port)
    assert isinstance(verdict, policy.Allow) is naive(policies, client, named, port)
