"""A running lab: names, services, exec, restarts, errors. The agents are stand-ins; the rest is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.lab import Lab, NotReady, Refused
from tests.lab.builders import a_namespace, a_node, a_pod, a_service
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
FAKE_AGENT = [sys.executable, str(ROOT / "tests/lab/fake_ambient.py")]
NAME = "labtest"
SERVER = """
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['HOSTNAME']} {self.client_address[0]}".encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Handler).serve_forever()
"""


def a_server(name: str, node: str) -> dict[str, object]:
    probe = {"httpGet": {"path": "/", "port": 8080}}
    command = ["/usr/bin/python3", "-c", SERVER]
    return a_pod(name, command=command, nodeName=node, container={"readinessProbe": probe})


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    manifests = [
        a_node("node1"),
        a_node("node2"),
        a_namespace("shop"),
        a_namespace("bank"),
        a_server("web", "node2"),
        a_service("web", ipFamilyPolicy="PreferDualStack"),
        a_service("direct", selector={"app": "web"}, clusterIP="None"),
        a_service("nobody"),
        a_pod("client", nodeName="node1"),
        a_pod("neighbour", nodeName="node2"),
        a_pod("teller", nodeName="node1", namespace="bank"),
        a_pod("host", nodeName="node2", hostNetwork=True),
        a_pod("sixth", nodeName="node2"),
    ]
    with Lab(NAME) as lab:
        began = time.monotonic()
        lab.up(manifests, agent=FAKE_AGENT, timeout=30)
        lab.took = time.monotonic() - began  # type: ignore[attr-defined]
        yield lab


def get(lab: Lab, pod: str, url: str, *options: str) -> str:
    return lab.exec(pod, "curl", "-sS", "-m", "5", "-g", *options, url).stdout


def cli(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ambient", "lab", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_two_nodes_and_six_pods_are_up_in_five_seconds(lab: Lab) -> None:
    assert lab.took < 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "direct:8080"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_service_is_reached_by_every_name_and_family(lab: Lab, name: str, family: str) -> None:
    assert get(lab, "shop/client", f"http://{name}/", family).startswith("web ")


def test_a_short_name_means_ones_own_namespace(lab: Lab) -> None:
    assert lab.exec("bank/teller", "getent", "hosts", "web", check=False).returncode != 0
    assert get(lab, "bank/teller", "http://web.shop/").startswith("web ")


@pytest.mark.parametrize("client", ["shop/client", "shop/neighbour"], ids=["other node", "same node"])
@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_pods_reach_each_other_and_see_each_others_addresses(lab: Lab, client: str, version: int) -> None:
    pods = lab.status()["pods"]
    to, source = pods["shop/web"]["ips"][version], pods[client]["ips"][version]
    seen = get(lab, client, f"http://[{to}]:8080/" if version else f"http://{to}:8080/")
    assert seen.removeprefix("web ").removeprefix("::ffff:") == source


def test_a_pod_reaches_itself_through_its_service(lab: Lab) -> None:
    assert get(lab, "shop/web", "http://web/").startswith("web ")


def test_the_node_is_seen_by_its_own_address(lab: Lab) -> None:
    assert get(lab, "shop/host", "http://web/", "-4") == f"web ::ffff:{lab.status()['nodes']['node2']['underlay'][0]}"


def test_a_service_without_pods_refuses_at_once(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        get(lab, "shop/client", "http://nobody/")
    assert caught.value.returncode == 7  # curl: connection refused


def test_a_pod_has_its_own_hostname_and_processes_in_its_cgroup(lab: Lab) -> None:
    assert lab.exec("shop/client", "hostname").stdout == "client\n"
    uid = lab.pod("shop/client")["uid"]
    assert f"/node1/pod{uid}" in lab.exec("shop/client", "cat", "/proc/self/cgroup").stdout


@pytest.mark.usefixtures("lab")
def test_exec_passes_input_arguments_and_exit_code_through() -> None:
    done = cli(
        "exec", "--lab", NAME, "shop/client", "--", "sh", "-c", 'cat; echo "$0 $1"; exit 42', "a b", "-x", input="in\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (42, "in\na b -x\n", "")
    assert cli("exec", "--lab", NAME, "shop/client", "--", "no-such-program").returncode == 127
    assert "there is no pod 'shop/x'" in cli("exec", "--lab", NAME, "shop/x", "--", "true").stderr


@pytest.mark.usefixtures("lab")
def test_exec_hands_over_terminal_and_signals() -> None:
    words = [sys.executable, "-m", "ambient", "lab", "exec", "--lab", NAME, "shop/client", "--"]
    terminal, inside = os.openpty()
    with subprocess.Popen([*words, "sh", "-c", "tty; read line; echo got $line"], stdin=inside, stdout=inside) as child:
        os.close(inside)
        os.write(terminal, b"it\n")
        assert child.wait(10) == 0
    said = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert "/dev/pts/" in said
    assert "got it" in said
    with subprocess.Popen(
        [*words, "sh", "-c", "trap 'exit 7' TERM; echo on; while :; do sleep 0.05; done"], stdout=-1
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        child.terminate()
        assert child.wait(10) == 7
    assert subprocess.run([*words, "sh", "-c", "kill -9 $$"], check=False).returncode == -signal.SIGKILL


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("no-such-program", 127, "No such file or directory"),
        ("/etc", 126, "Permission denied"),
        ("/etc/hosts", 126, ""),
    ],
)
def test_exec_of_what_is_no_program_has_the_shells_codes(command: str, code: int, says: str) -> None:
    done = cli("exec", "--lab", NAME, "shop/client", "--", command)
    assert done.returncode == code
    assert done.stderr.startswith(f"Error: {command} cannot be run in shop/client: {says}")


def test_a_service_may_have_ipv6_alone(lab: Lab) -> None:
    lab.apply(a_service("six", selector={"app": "web"}, ipFamilies=["IPv6"]))
    assert get(lab, "shop/client", "http://six/").startswith("web fd00:")
    assert lab.exec("shop/client", "getent", "ahostsv4", "six", check=False).returncode != 0
    lab.delete(a_service("six"))


@pytest.mark.usefixtures("lab")
def test_status_tells_what_the_agents_say() -> None:
    found = json.loads(cli("status", "--lab", NAME, "-o", "json").stdout)
    assert found["pods"]["shop/client"]["enrolled"]
    assert not found["pods"]["shop/web"]["enrolled"]
    for node in found["nodes"].values():
        assert Path(f"/proc/{node['engine_pid']}").exists()
        assert (
            Path(f"/proc/{node['agent_pid']}/ns/net").stat().st_ino == Path(f"/run/netns/{node['netns']}").stat().st_ino
        )
    assert "shop/web" in cli("status", "--lab", NAME).stdout


def test_an_agent_that_dies_is_started_again(lab: Lab) -> None:
    before = lab.status()["nodes"]["node1"]["agent_pid"]
    os.kill(before, signal.SIGKILL)
    assert lab.pod("shop/client")["enrolled"] in {None, True}  # not known for a moment is not "no"
    eventually(lambda: lab.status()["nodes"]["node1"]["agent_pid"] not in {0, before})
    lab.wait(timeout=10)
    assert lab.status()["nodes"]["node1"]["agent_restarts"] == 1
    assert "fake agent listens" in lab.logs("node/node1")


def test_a_pod_whose_every_process_is_killed_is_made_anew(lab: Lab) -> None:
    before = lab.status()["pods"]["shop/web"]
    command = ["ip", "netns", "pids", lab.pod_netns("shop/web").name]
    for pid in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    eventually(lambda: lab.status()["pods"]["shop/web"]["pause_pid"] not in (0, before["pause_pid"]))
    lab.wait(timeout=20)
    after = lab.status()["pods"]["shop/web"]
    assert (after["ips"], after["restarts"] > before["restarts"]) == (before["ips"], True)
    assert get(lab, "shop/client", "http://web/").split()[0] == "web"
    assert lab.exec("shop/web", "hostname").stdout.strip() == "web"


def test_a_program_that_ends_is_started_again_with_backoff(lab: Lab) -> None:
    lab.apply(a_pod("brief", command=["sh", "-c", "echo once; read x < /proc/sys/kernel/random/uuid; sleep 0.5"]))
    eventually(lambda: lab.pod("shop/brief")["restarts"] >= 1)
    eventually(lambda: "CrashLoopBackOff" in lab.logs("shop/brief"))
    assert lab.logs("shop/brief").count("once\n") >= 2
    lab.delete(a_pod("brief"))
    assert "shop/brief" not in lab.status()["pods"]
    assert not lab.pod_netns("shop/brief").exists()


def test_a_pod_that_ends_on_purpose_is_not_waited_for(lab: Lab) -> None:
    lab.apply(a_pod("job", command=["true"], restartPolicy="Never"))
    eventually(lambda: lab.pod("shop/job")["phase"] == "Succeeded")
    lab.wait(timeout=5)
    lab.delete(a_pod("job"))


def test_what_is_not_ready_is_named_with_its_probes_word_and_its_log(lab: Lab) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo too cold; exit 3"]}}
    pod = a_pod("slow", command=["sh", "-c", "echo warming up; sleep infinity"], container={"readinessProbe": probe})
    with pytest.raises(NotReady) as caught:
        lab.apply(pod, timeout=1)
    assert "pod shop/slow is not ready" in str(caught.value)
    assert "exit code 3: too cold" in str(caught.value)
    assert "warming up" in str(caught.value)
    lab.delete(pod)


def test_a_program_that_is_not_there_is_not_waited_for(lab: Lab) -> None:
    pod = a_pod("typo", command=["slep", "infinity"])
    began = time.monotonic()
    with pytest.raises(
        NotReady, match="pod shop/typo is not ready: main: cannot be started: no program 'slep' in PATH"
    ):
        lab.apply(pod, timeout=60)
    assert time.monotonic() - began < 5
    lab.delete(pod)


def test_a_pod_whose_program_ends_at_once_is_not_ready_although_it_was(lab: Lab) -> None:
    pod = a_pod("brief", command=["sh", "-c", "echo bye; exit 3"])
    with pytest.raises(NotReady, match="main: its program ended: exit code 3"):
        lab.apply(pod, timeout=1)
    lab.delete(pod)


def test_a_silent_agent_is_named_with_the_end_of_its_log(lab: Lab) -> None:
    stopped = lab.status()["nodes"]["node2"]["agent_pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        with pytest.raises(NotReady) as caught:
            lab.label("ns/shop", "a=b", timeout=0.2)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert "agent node2 has not converged: its admin socket does not answer (silence)" in str(caught.value)
    assert "its log ends:" in str(caught.value)
    lab.label("ns/shop", "a-")


def test_others_do_not_wait_for_a_pod_that_was_not_ready_before(lab: Lab) -> None:
    pod = a_pod("broken", container={"readinessProbe": {"exec": {"command": ["false"]}}})
    with pytest.raises(NotReady):
        lab.apply(pod, timeout=0.5)
    why = "main: its readiness probe failed"
    assert lab.pod("shop/broken")["why"].startswith(why)
    (remark,) = lab.label("ns/shop", "a=b", timeout=60)
    assert remark.startswith(f"pod shop/broken was not waited for: {why}")
    assert len(lab.apply(a_namespace("another"), timeout=60)) == 1
    with pytest.raises(NotReady):
        lab.apply(pod, timeout=0.5)  # it is this one's matter
    lab.label("ns/shop", "a-")
    lab.delete([pod, a_namespace("another")])


@pytest.mark.usefixtures("lab")
def test_a_change_that_does_not_get_ready_says_that_it_stays(tmp_path: Path) -> None:
    pod = a_pod("cold", container={"readinessProbe": {"exec": {"command": ["false"]}}})
    (tmp_path / "cold.json").write_text(json.dumps(pod))
    done = cli("apply", "--lab", NAME, "-f", str(tmp_path / "cold.json"), "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (1, "pod/shop/cold created\n")
    assert "pod shop/cold is not ready" in done.stderr
    assert "The change was made and stays: take it away with `ambient lab delete -f`." in done.stderr
    status = cli("status", "--lab", NAME).stdout
    assert "readiness probe failed" in next(line for line in status.splitlines() if line.startswith("shop/cold"))
    done = cli("delete", "--lab", NAME, "-f", str(tmp_path / "cold.json"))
    assert (done.returncode, done.stdout) == (0, "pod/shop/cold deleted\n")


@pytest.mark.usefixtures("lab")
def test_what_makes_no_difference_is_told_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "pod.json").write_text(json.dumps(a_pod("image", container={"image": "nginx"})))
    done = cli("apply", "--lab", NAME, "-f", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "pod/shop/image created\n")
    assert cli("apply", "--lab", NAME, "-f", str(tmp_path)).stdout == "pod/shop/image unchanged\n"
    label = ("label", "--lab", NAME, "pod/shop/image", "a=b")
    assert [cli(*label).stdout for _ in range(2)] == ["pod/shop/image labeled\n", "pod/shop/image unchanged\n"]
    assert done.stderr.startswith(
        f"Note: {tmp_path}/pod.json: document 1 (Pod shop/image): spec.containers[0].image: no"
    )
    assert cli("delete", "--lab", NAME, "-f", str(tmp_path)).stderr == ""


@pytest.mark.usefixtures("lab")
def test_manifests_without_an_object_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    for verb in ("apply", "delete"):
        done = cli(verb, "--lab", NAME, "-f", str(tmp_path))
        said = "Note: there is no object in these manifests: nothing was changed\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, "", said)


def test_an_agent_that_does_not_converge_is_named_with_what_it_waits_for(lab: Lab) -> None:
    with pytest.raises(NotReady) as caught:
        lab.apply(a_namespace("stuck"), timeout=1)
    assert "agent node1 has not converged" in str(caught.value)
    assert "certificate spiffe://nobody" in str(caught.value)
    lab.delete(a_namespace("stuck"))


def test_a_bad_manifest_changes_nothing(lab: Lab) -> None:
    before = lab.status(), sorted(path.read_bytes() for path in lab.layout.cluster.iterdir())
    bad = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"rule": []},
    }
    with pytest.raises(Refused, match=r"spec\.rule"):
        lab.apply([a_namespace("another"), a_pod("more"), bad])
    assert before == (lab.status(), sorted(path.read_bytes() for path in lab.layout.cluster.iterdir()))


def test_readiness_decides_who_stands_behind_a_service(lab: Lab) -> None:
    ready = lab.layout.state / "ready"
    probe = {"exec": {"command": ["test", "-e", str(ready)]}, "periodSeconds": 0.05, "failureThreshold": 1}
    pod = a_server("flag", "node1")
    pod["spec"]["containers"][0]["readinessProbe"] = probe  # type: ignore[index]
    ready.touch()
    lab.apply([pod, a_service("flag")])
    assert get(lab, "shop/client", "http://flag/").startswith("flag")
    ready.unlink()
    eventually(lambda: not lab.pod("shop/flag")["ready"])
    assert lab.exec("shop/client", "curl", "-sS", "-m", "5", "http://flag/", check=False).returncode == 7
    lab.delete([pod, a_service("flag")])


def test_a_node_comes_and_goes_with_its_pods(lab: Lab) -> None:
    lab.apply([a_node("node3"), a_pod("late", nodeName="node3")])
    assert get(lab, "shop/late", "http://web/").startswith("web")
    lab.delete(a_node("node3"))
    assert "shop/late" not in lab.status()["pods"]
    assert not lab.node_netns("node3").exists()
    lab.apply(a_node("node3"))
    lab.delete(a_node("node3"))


def test_labels_reach_the_agents_files(lab: Lab) -> None:
    lab.label("ns/shop", "ambient.dev/mode=enabled")
    assert "ambient.dev/mode: enabled" in (lab.layout.cluster / "namespace_shop.yaml").read_text()
    lab.label("ns/shop", "ambient.dev/mode-")
    assert "ambient.dev/mode" not in (lab.layout.cluster / "namespace_shop.yaml").read_text()
    with pytest.raises(Refused, match=r"ambient\.dev/mode"):
        lab.label("ns/shop", "ambient.dev/mode=perhaps")
