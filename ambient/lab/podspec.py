"""What the lab plays of a pod's spec, as data; see playable.py. Pure."""

from __future__ import annotations

from ambient.lab.shapes import Each, Shape, number, only, port_or_name, texts
from ambient.sources.reading import Spot

PLACED = "the lab places pods by nodeName, else on the emptiest node"
FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip


def _one_action(probe: Spot) -> None:
    actions = ("tcpSocket", "httpGet", "exec")
    if sum(bool(probe.get(action)) for action in actions) != 1:
        probe.wrong("one of " + ", ".join(actions))


def _named_ports(container: Spot) -> None:
    """A probe's port is named among the container's."""
    names = {entry.get("name").value for entry in container.get("ports").items()}
    for action in ("tcpSocket", "httpGet"):
        port = container.at("readinessProbe", action, "port")
        if isinstance(port.value, str) and port.value not in names:
            port.wrong("a port number, or the name of one of the container's ports")


HTTP_GET = Shape(
    played={
        "path": Spot.text,
        "port": port_or_name,
        "host": Spot.address,
        "scheme": only("HTTP", "HTTPS"),
        "httpHeaders": Each(
            Shape(played={"name": Spot.text, "value": Spot.text}, required={"name": "a name", "value": "a value"})
        ),
    },
    required={"port": "a port"},
)
TCP_SOCKET = Shape(played={"port": port_or_name, "host": Spot.address}, required={"port": "a port"})
COMMAND = "a list of texts (the lab runs programs of this machine, not images)"
PROBE = Shape(
    played={
        "tcpSocket": TCP_SOCKET,
        "httpGet": HTTP_GET,
        "exec": Shape(played={"command": texts(COMMAND, at_least_one=True)}, required={"command": COMMAND}),
        "initialDelaySeconds": number(0),
        "periodSeconds": number(0.01),
        "timeoutSeconds": number(0.01),
        "successThreshold": number(1, whole=True),
        "failureThreshold": number(1, whole=True),
    },
    moot={"terminationGracePeriodSeconds": "the lab ends programs at once"},
    beyond={"grpc": "the lab plays tcpSocket, httpGet and exec"},
    also=_one_action,
)
NO_VOLUMES = "the lab has no volumes: programs see this machine's files"
ONLY_READINESS = "the lab plays readinessProbe only; leave it out"
ENV_SOURCE = Shape(
    played={"fieldRef": Shape(played={"fieldPath": only(*FIELD_PATHS)}, moot={"apiVersion": "it is v1"})},
    beyond=dict.fromkeys(
        ("configMapKeyRef", "secretKeyRef", "resourceFieldRef", "fileKeyRef"), "the lab plays fieldRef only"
    ),
)
CONTAINER = Shape(
    played={
        "name": Spot.text,
        "command": texts(COMMAND, at_least_one=True),
        "args": texts("a list of texts"),
        "env": Each(
            Shape(played={"name": Spot.text, "value": Spot.text, "valueFrom": ENV_SOURCE}, required={"name": "a name"})
        ),
        "ports": Each(
            Shape(
                played={"name": Spot.text, "containerPort": Spot.port, "protocol": only("TCP", "UDP")},
                beyond=dict.fromkeys(("hostPort", "hostIP"), "use hostNetwork"),
                required={"containerPort": "a port number"},
            )
        ),
        "readinessProbe": PROBE,
    },
    moot={
        "image": "no image is pulled: `command` is a program of this machine",
        "imagePullPolicy": "no image is pulled",
        "resources": "the lab limits nothing",
        **dict.fromkeys(("terminationMessagePath", "terminationMessagePolicy"), "see `ambient lab logs`"),
    },
    beyond={
        **dict.fromkeys(("livenessProbe", "startupProbe", "lifecycle"), ONLY_READINESS),
        **dict.fromkeys(("volumeMounts", "volumeDevices"), NO_VOLUMES),
        **dict.fromkeys(("stdin", "stdinOnce", "tty"), "use `ambient lab exec`"),
        **dict.fromkeys(("restartPolicy", "restartPolicyRules"), "the lab plays the pod's"),
        "resizePolicy": "the lab limits nothing",
        "envFrom": "the lab has no ConfigMaps and Secrets; use env",
        "securityContext": "the lab's programs run as root",
        "workingDir": "the lab's programs start in /",
    },
    required={"command": COMMAND},
    also=_named_ports,
)
SHARED = "the lab's pods have a network, mount and UTS namespace of their own, and share the others"
NAMES = "the lab's pods are named as they are, and know names from /etc/hosts"
POD = Shape(
    played={
        "containers": Each(CONTAINER, "at least one container"),
        "nodeName": Spot.text,
        "serviceAccountName": Spot.text,
        "hostNetwork": Spot.flag,
        "restartPolicy": only("Always", "OnFailure", "Never"),
        "dnsPolicy": only("ClusterFirst", "ClusterFirstWithHostNet", why="a pod knows the services' names"),
    },
    moot={
        "terminationGracePeriodSeconds": "the lab ends programs at once",
        "imagePullSecrets": "no image is pulled",
        **dict.fromkeys(("priority", "priorityClassName", "preemptionPolicy"), "the lab evicts nobody"),
        "tolerations": "the lab's nodes have no taints",
        "schedulerName": "the lab has one scheduler",
        "automountServiceAccountToken": "the lab has no tokens",
        "enableServiceLinks": "the lab sets no such variables",
    },
    beyond={
        **dict.fromkeys(("initContainers", "ephemeralContainers"), "the lab runs plain containers only"),
        "volumes": NO_VOLUMES,
        **dict.fromkeys(("affinity", "nodeSelector", "topologySpreadConstraints", "schedulingGates"), PLACED),
        **dict.fromkeys(("hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"), SHARED),
        **dict.fromkeys(("hostname", "hostnameOverride", "subdomain", "setHostnameAsFQDN"), NAMES),
        **dict.fromkeys(("hostAliases", "dnsConfig"), NAMES),
        **dict.fromkeys(("resources", "resourceClaims", "overhead"), "the lab limits nothing"),
        **dict.fromkeys(("runtimeClassName", "os", "securityContext"), "the lab's programs run as root, on Linux"),
        "activeDeadlineSeconds": "the lab ends no pod by itself",
        "readinessGates": "a pod is ready when its containers are",
        "serviceAccount": "use serviceAccountName",
    },
    required={"containers": "at least one container"},
)
