"""The stand-in for kube-proxy: ClusterIP for pods outside the mesh, as an nftables ruleset in the node's netns.

This is the lab's, in the place of what every cluster has anyway. The mesh itself never uses netfilter, and nothing of
it depends on this: a connection the mesh carries goes to a pod's address and meets no rule here. Only text is made.
"""

from __future__ import annotations

from collections.abc import Iterable

from ambient.lab import addressing
from ambient.lab.endpoints import ServicePort

TABLE = "inet ambient-lab-services"
_CHAINS = """
  chain from-pods { type nat hook prerouting priority dstnat; jump services; }
  chain from-node { type nat hook output priority -100; jump services; }
  chain leaving {
    type nat hook postrouting priority srcnat;
%(hairpin)s
  }
  chain forwarded { type filter hook forward priority filter; jump nobody; }
  chain dialled { type filter hook output priority filter; jump nobody; }
  chain nobody {
    ip daddr %(services4)s meta l4proto tcp reject with tcp reset
    ip daddr %(services4)s reject
    ip6 daddr %(services6)s meta l4proto tcp reject with tcp reset
    ip6 daddr %(services6)s reject
  }
"""


def ruleset(ports: Iterable[ServicePort]) -> str:
    """A whole replacement for the table, applied by nft in one transaction.

    A backend is drawn at random per connection; a service nobody stands behind is refused, not left to time out; a pod
    that reaches itself through its service is masqueraded, or it would drop its own address as a martian.
    """
    rules: list[str] = []
    own: set[str] = set()
    for row in ports:
        if not row.backends:
            continue
        family = "ip" if row.vip.version == 4 else "ip6"
        targets = ", ".join(f"{number} : {ip} . {port}" for number, (ip, port) in enumerate(row.backends))
        rules.append(
            f"    {family} daddr {row.vip} {row.protocol} dport {row.port} "
            f"dnat {family} to numgen random mod {len(row.backends)} map {{ {targets} }}"
        )
        own |= {f"    {family} saddr {ip} {family} daddr {ip} ct status dnat masquerade" for ip, _ in row.backends}
    chains = _CHAINS % {
        "hairpin": "\n".join(sorted(own)),
        "services4": addressing.SERVICES4,
        "services6": addressing.SERVICES6,
    }
    services = "\n".join(["  chain services {", *rules, "  }"])
    return f"table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n{services}{chains}}}\n"
