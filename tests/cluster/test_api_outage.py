"""The API server away for a while: what runs goes on, and all is well when it is back."""

from __future__ import annotations

import pytest

from hack.kube import Cluster, ClusterError
from tests.cluster.manifests import server
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster


def test_pods_talk_through_services_while_there_is_no_api_server(cluster: Cluster, shop: Space, space: Space) -> None:
    vip = shop.get("service", "web")["spec"]["clusterIP"]
    with shop.puppet("client", without_api=True) as client:
        cluster.control_plane.apiserver.stop()
        try:
            with pytest.raises(ClusterError, match="refused"):
                cluster.kubectl("get", "nodes")
            assert client.ask(vip, 80).who["pod"] in {"web-1", "web-2"}
        finally:
            cluster.control_plane.start_api()
        assert client.ask(vip, 80).who["pod"] in {"web-1", "web-2"}
    space.run(server("after", "node1"))
