"""A pair of Envoys as HBONE client and server: their configuration, and their life in the pods of a lab without mesh.

The client's listens on the pod's loopback, one port per program of the server: nothing has to be redirected, which is
a little in its favour.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ambient.identity import svid
from ambient.identity.ca import EmbeddedCA
from ambient.identity.svid import Svid
from ambient.lab import Lab
from ambient.model.mesh import Identity
from bench.mesh import pods
from bench.mesh.loads import PORTS

BINARY = Path(sys.executable).parent / "envoy"
TUNNEL_PORT = 15008
WORKERS = 2  # as many as the engine has
START_S = 15.0
UNLIMITED = 1 << 20  # its default lets only 1,024 connections and as many requests through at once

Config = dict[str, Any]
_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def certificate(ca_dir: Path, account: str) -> Svid:
    """A certificate of the mesh's own CA for a service account of the bench."""
    identity = Identity("cluster.local", pods.NAMESPACE, account)
    key, csr = svid.request(identity)
    ca = EmbeddedCA.open(ca_dir, identity.trust_domain)
    issued = asyncio.run(ca.issue(csr, identity, timedelta(hours=1)))
    return svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=datetime.now(UTC))


def client(server: str, own: Svid) -> Config:
    """Each listener's connections become CONNECT streams to the same port of `server`, as tcp_proxy tunnels them."""
    http2 = {"@type": f"type.googleapis.com/{_HTTP}", "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = _cluster(
        "tunnel",
        server,
        TUNNEL_PORT,
        transport_socket=_tls("UpstreamTlsContext", own),
        typed_extension_protocol_options={_HTTP: http2},
    )
    return _static([_door(server, port) for port in PORTS], [cluster])


def server(address: str, own: Svid) -> Config:
    """The tunnel port ends CONNECT and dials the program the authority names."""
    hosts = [
        {
            "name": f"port_{port}",
            "domains": [f"{address}:{port}"],
            "routes": [
                {
                    "match": {"connect_matcher": {}},
                    "route": {
                        "cluster": f"port_{port}",
                        "timeout": "0s",
                        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                    },
                }
            ],
        }
        for port in PORTS
    ]
    router = {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    chain = {"filters": filters, "transport_socket": _tls("DownstreamTlsContext", own, require_client_certificate=True)}
    listener = {"name": "tunnel", "address": _socket(address, TUNNEL_PORT), "filter_chains": [chain]}
    return _static([listener], [_cluster(f"port_{port}", "127.0.0.1", port) for port in PORTS])


@contextlib.contextmanager
def running(lab: Lab, pod: str, config: Config, folder: Path) -> Iterator[int]:
    """Envoy with this configuration inside a pod; yields its pid once it listens."""
    path, log = folder / f"{pod.replace('/', '_')}.json", folder / f"{pod.replace('/', '_')}.log"
    path.touch(0o600)  # it holds the key
    path.write_text(json.dumps(config))
    options = f"--concurrency {WORKERS} --disable-hot-restart --log-level warning --log-path {log}"
    child = lab.popen(pod, [str(BINARY), "-c", str(path), *options.split()], stderr=subprocess.DEVNULL)
    try:
        _until_listening(lab, pod, config, child, log)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def _until_listening(lab: Lab, pod: str, config: Config, child: subprocess.Popen[Any], log: Path) -> None:
    """All its listeners are there; looked at from outside, so that no connection of ours is in its counts."""
    wanted = {row["address"]["socket_address"]["port_value"] for row in config["static_resources"]["listeners"]}
    deadline = time.monotonic() + START_S
    while True:
        said = lab.exec(pod, "ss", "-Hltn").stdout
        if wanted <= {int(line.split()[3].rpartition(":")[2]) for line in said.splitlines()}:
            return
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Envoy in {pod} does not listen on {sorted(wanted)}: {log.read_text()[-500:]}")
        time.sleep(0.05)


def _static(listeners: list[Config], clusters: list[Config]) -> Config:
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _socket(address: str, port: int) -> Config:
    return {"socket_address": {"address": address, "port_value": port}}


def _door(server: str, port: int) -> Config:
    proxy = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "out",
        "cluster": "tunnel",
        "tunneling_config": {"hostname": f"{server}:{port}"},
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {"name": f"port_{port}", "address": _socket("127.0.0.1", port), "filter_chains": [{"filters": filters}]}


def _cluster(name: str, address: str, port: int, **more: object) -> Config:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _socket(address, port)}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    breakers = {"thresholds": [dict.fromkeys(limits, UNLIMITED)]}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": assignment,
        "circuit_breakers": breakers,
        **more,
    }


def _tls(kind: str, own: Svid, **more: object) -> Config:
    common = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": own.chain_pem.decode()},
                "private_key": {"inline_string": own.key_pem.decode()},
            }
        ],
        "validation_context": {"trusted_ca": {"inline_string": own.roots_pem.decode()}},
    }
    typed = {"@type": f"{_TYPES}.transport_sockets.tls.v3.{kind}", "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}
