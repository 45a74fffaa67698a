"""Envoy, the proxy we did not write, as HBONE client and as HBONE server: its configuration and its process."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

from tests import slowness

from . import apps, pki, process

BINARY = pathlib.Path(sys.executable).parent / "envoy"
START_TIMEOUT = slowness.seconds(15.0)

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Config = dict[str, object]


def _socket(address: apps.Address) -> Config:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _tls(kind: str, leaf: pki.Leaf, folder: pathlib.Path) -> Config:
    cert, key, roots = leaf.write(folder)
    common: Config = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}],
        "validation_context": {"trusted_ca": {"filename": str(roots)}},
    }
    typed: Config = {"@type": f"{_TYPES}.transport_sockets.tls.v3.{kind}", "common_tls_context": common}
    if kind == "DownstreamTlsContext":
        typed["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _cluster(name: str, address: apps.Address, **more: object) -> Config:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _socket(address)}}]}
    assignment = {"cluster_name": name, "endpoints": [endpoint]}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment, **more}


def client(tunnel: apps.Address, app: apps.Address, leaf: pki.Leaf, folder: pathlib.Path) -> Config:
    """A TCP listener whose connections become CONNECT streams to `tunnel` that ask for `app`."""
    http2 = {
        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    proxy = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "out",
        "cluster": "tunnel",
        "tunneling_config": {"hostname": f"{app[0]}:{app[1]}"},
    }
    listener = {
        "name": "door",
        "address": _socket(("127.0.0.1", 0)),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }
    cluster = _cluster(
        "tunnel",
        tunnel,
        transport_socket=_tls("UpstreamTlsContext", leaf, folder),
        typed_extension_protocol_options={_HTTP_OPTIONS: http2},
    )
    return {"listeners": [listener], "clusters": [cluster]}


def server(app: apps.Address, leaf: pki.Leaf, folder: pathlib.Path) -> Config:
    """A tunnel port that ends CONNECT and dials `app`, whatever the authority."""
    route = {
        "match": {"connect_matcher": {}},
        "route": {"cluster": "app", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket": _tls("DownstreamTlsContext", leaf, folder),
    }
    listener = {"name": "door", "address": _socket(("127.0.0.1", 0)), "filter_chains": [chain]}
    return {"listeners": [listener], "clusters": [_cluster("app", app)]}


@contextlib.contextmanager
def running(resources: Config, folder: pathlib.Path) -> Iterator[apps.Address]:
    """Envoy with these static resources; yields the address of its listener."""
    folder.mkdir(parents=True, exist_ok=True)
    admin_path, log_path, config_path = (folder / name for name in ("admin.txt", "envoy.log", "envoy.json"))
    config = {
        "static_resources": resources,
        "admin": {"address": _socket(("127.0.0.1", 0))},
    }
    config_path.write_text(json.dumps(config))
    command = [BINARY, "--config-path", config_path, "--admin-address-path", admin_path, "--log-path", log_path]
    with subprocess.Popen(
        [*command, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            process.eventually(
                lambda: child.poll() is not None or (admin_path.exists() and _is_live(admin_path)),
                "Envoy is live",
                START_TIMEOUT,
            )
            assert child.poll() is None, f"Envoy ended: {log_path.read_text()}"
            yield _door(admin_path)
        finally:
            child.kill()


def _get(admin: pathlib.Path, path: str) -> str:
    with urllib.request.urlopen(f"http://{admin.read_text()}{path}", timeout=5) as response:
        return str(response.read().decode())


def _is_live(admin: pathlib.Path) -> bool:
    try:
        return "LIVE" in _get(admin, "/ready")
    except OSError:  # includes the 503 of an Envoy that initialises
        return False


def _door(admin: pathlib.Path) -> apps.Address:
    (status,) = json.loads(_get(admin, "/listeners?format=json"))["listener_statuses"]
    address = status["local_address"]["socket_address"]
    return address["address"], address["port_value"]
