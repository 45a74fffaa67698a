"""ServiceAccount tokens as a control plane uses them: for its audience, bound to a pod, naming the node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import pod
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
AUDIENCE = "ambient-control"
FILE = "/var/run/secrets/tokens/token"


def review(cluster: Cluster, token: str, audience: str) -> Any:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    said = cluster.kubectl("create", "--filename=-", "--output=json", text=json.dumps(body))
    return json.loads(said)["status"]


def token_of_a_pod(space: Space, name: str) -> str:
    source = {"serviceAccountToken": {"audience": AUDIENCE, "path": "token", "expirationSeconds": 600}}
    volume = {"name": "token", "projected": {"sources": [source]}}
    mount = {"volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": True}]}
    space.run(pod(name, "node2", container=mount, volumes=[volume]))
    return space.exec(name, "cat", FILE)


def test_a_projected_token_names_its_pod_and_its_node(cluster: Cluster, space: Space) -> None:
    status = review(cluster, token_of_a_pod(space, "caller"), AUDIENCE)
    assert status["authenticated"]
    assert status["audiences"] == [AUDIENCE]
    assert status["user"]["username"] == f"system:serviceaccount:{space.name}:default"
    extra = status["user"]["extra"]
    told = {key.removeprefix("authentication.kubernetes.io/"): value[0] for key, value in extra.items()}
    assert told["pod-name"] == "caller"
    assert told["pod-uid"] == space.get("pod", "caller")["metadata"]["uid"]
    assert told["node-name"] == "node2"


def test_a_token_is_worth_nothing_for_another_audience_or_without_its_pod(cluster: Cluster, space: Space) -> None:
    token = token_of_a_pod(space, "caller")
    assert not review(cluster, token, "somebody-else").get("authenticated")
    space.kubectl("delete", "pod", "caller", "--wait")
    assert not review(cluster, token, AUDIENCE).get("authenticated")
