"""From a CA of ours to another's intermediate, mounted by kubelets, as docs/identity.md says, while pods talk."""

from __future__ import annotations

import base64
import json

import pytest

from ambient.control.authority import SECRET, STATE
from ambient.identity import profile
from hack.kube import Cluster, ClusterError
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.test_rotation import await_everywhere, roots
from tests.identity.test_ca_files import LOW, MIDDLE, ROOT
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
MOUNTED = "ambient-intermediate"
FOLDER = "/var/run/secrets/ambient/ca"
FOLLOWED_S = 150  # kubelets look at mounted Secrets once a minute or so
OTHER = profile.short_id(ROOT.certificate)
WITH_FILES = {
    "spec": {
        "template": {
            "spec": {
                "securityContext": {"fsGroup": 65532},
                "containers": [
                    {
                        "name": "control",
                        "args": ["control", f"--ca-files={FOLDER}"],
                        "volumeMounts": [{"name": "ca", "mountPath": FOLDER, "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "ca", "secret": {"secretName": MOUNTED, "defaultMode": 0o440}}],
            }
        }
    }
}


def mount(cluster: Cluster, chain: bytes, key: bytes, trusted: bytes) -> None:
    files = {"tls.crt": chain, "tls.key": key, "ca.crt": trusted}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    metadata = {"name": MOUNTED, "namespace": NAMESPACE}
    cluster.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}])


def replicas_that_sign_by(cluster: Cluster, which: str) -> int:
    of_it = ["--tail=-1", "-l", "app.kubernetes.io/name=ambient-control"]
    try:
        said = cluster.kubectl("--namespace", NAMESPACE, "logs", *of_it)
    except ClusterError:  # one of the rollout before went while it was asked
        return 0
    return said.count(f"certificates are signed by {which} from now on")


@pytest.mark.timeout(480)
def test_another_ca_takes_over_from_ours_under_traffic(talking: Space, cluster: Cluster, mesh: Mesh) -> None:
    web, old = talking.ips("web")[0], roots()["signs"]
    kept = cluster.get("--namespace", NAMESPACE, "secret", SECRET)["data"][STATE]
    ours = {name: value.encode() for name, value in json.loads(base64.b64decode(kept))["signer"].items()}
    both = ours["certificate"] + ROOT.pem
    with talking.puppet("client") as client:
        assert not client.open("talk", web, 8080).error
        client.do("chat", name="talk")
        client.do("newcomers", name="newcomers", to=web, port=8080)

        mount(cluster, ours["certificate"], ours["key"], both)
        patch = ["--type=strategic", "--patch", json.dumps(WITH_FILES)]
        cluster.kubectl("--namespace", NAMESPACE, "patch", "deployment/ambient-control", *patch)
        mesh.await_rollout()
        await_everywhere(cluster, trusts={old, OTHER}, signed_by=old)

        mount(cluster, LOW.pem + MIDDLE.pem, profile.key_pem(LOW.key), both)
        low = profile.short_id(LOW.certificate)
        eventually("both replicas follow", lambda: replicas_that_sign_by(cluster, low) == 2, within=FOLLOWED_S)
        cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", "daemonset/ambient-agent")
        mesh.await_rollout()
        await_everywhere(cluster, trusts={old, OTHER}, signed_by=OTHER)

        mount(cluster, LOW.pem + MIDDLE.pem, profile.key_pem(LOW.key), ROOT.pem)
        await_everywhere(cluster, trusts={OTHER}, signed_by=OTHER, within=FOLLOWED_S)
        cluster.kubectl("--namespace", NAMESPACE, "delete", "secret", SECRET)

        client.do("fresh", name="newcomers", times=100)
        newcomers, talk = client.do("finish", name="newcomers"), client.do("finish", name="talk")
    assert (newcomers.error, newcomers.failed) == ("", [])
    assert talk.error == ""
