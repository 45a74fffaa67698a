"""The plugin as a runtime sees it: what it prints, how it exits, whom it asks, and what it does without an answer."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cni import native
from tests.cni.fake_agent import FakeAgent
from tests.cni.runtime import BINARY, Attachment, call

NETNS = "/proc/self/ns/net"
POD = Attachment(container="c0ffee", netns=NETNS, namespace="shop", name="web", uid="u-1")
RESULT = (
    b'{"cniVersion": "1.0.0",  "ips":[{"address":"10.0.0.5/24"}], "x": 1.50, "y": "\\u00e4"}'  # no writer's own style
)
PASS, HELD = 0, 1
HOUR_LONG = {"cniVersion": "1.0.0", "code": 11, "msg": "ambient: wait", "details": "for it"}


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="amb") as folder:  # short: it has a unix socket
        yield Path(folder)


def config(run_dir: Path, result: bytes | None = RESULT, **more: object) -> bytes:
    given = {"cniVersion": "1.0.0", "name": "pods", "type": "ambient-cni", "runDir": str(run_dir), **more}
    text = json.dumps(given)
    return text.encode() if result is None else text[:-1].encode() + b', "prevResult": ' + result + b"}"


def say(done: subprocess.CompletedProcess[bytes]) -> tuple[int, Any]:
    assert done.stderr == b"", done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def ask(command: str, stdin: bytes, pod: Attachment = POD, program: Path = BINARY) -> tuple[int, Any]:
    return say(call(program, pod.environment(command), stdin))


def write_namespaces(run_dir: Path, *lines: str, version: str = "ambient-cni 1") -> None:
    (run_dir / "namespaces").write_text("".join(f"{line}\n" for line in (version, *lines)))


# What needs nobody


def test_version_names_what_it_speaks() -> None:
    code, said = ask("VERSION", b'{"cniVersion":"1.0.0"}')
    assert code == PASS
    assert said == {"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def test_status_is_always_good_so_that_no_node_is_given_up_for_us(run_dir: Path) -> None:
    assert ask("STATUS", config(run_dir, None)) == (PASS, None)


@pytest.mark.parametrize(
    ("command", "stdin", "code"),
    [
        ("ADD", b"", 6),
        ("ADD", b"{", 6),
        ("ADD", b"[]", 6),
        ("ADD", b'{"runDir":"/x"}', 7),
        ("ADD", b'{"runDir":"/a\\u0041","prevResult":{}}', 7),
        ("ADD", b'{"runDir":1,"prevResult":{}}', 7),
        ("ADD", b" " * (1 << 20), 5),
        ("JUMP", b"{}", 4),
        ("", b"{}", 4),
    ],
    ids=["nothing", "half", "a list", "not chained", "escapes", "a number", "too long", "unknown", "empty"],
)
def test_what_it_cannot_work_with_is_an_error_with_a_code(command: str, stdin: bytes, code: int) -> None:
    exit_code, said = ask(command, stdin)
    assert (exit_code, said["code"], said["cniVersion"]) == (HELD, code, "1.0.0")
    assert said["msg"].startswith("ambient: ")


def test_without_a_command_it_says_what_it_is() -> None:
    done = subprocess.run([BINARY], env={}, capture_output=True, check=False, timeout=10)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (HELD, 4)


def test_an_error_is_of_the_configurations_version() -> None:
    _, said = ask("ADD", b'{"cniVersion":"0.4.0"}')
    assert said["cniVersion"] == "0.4.0"


def test_it_needs_nothing_of_the_node_it_runs_on() -> None:
    if BINARY.read_bytes().find(b"__asan_init") >= 0:
        pytest.skip("a sanitized build is linked as the sanitizers want it")
    done = subprocess.run(
        ["ldd", BINARY], capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    assert "statically linked" in done.stdout or "not a dynamic executable" in done.stderr


# With an agent


def test_an_allowed_pod_goes_on_with_the_result_as_it_came(run_dir: Path) -> None:
    with FakeAgent(run_dir) as agent:
        done = call(BINARY, POD.environment("ADD"), config(run_dir))
    assert (done.returncode, done.stdout) == (PASS, RESULT + b"\n")
    (asked,) = agent.asked
    assert asked.variables == {
        "AMBIENT_CNI": "1",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c0ffee",
        "CNI_NETNS": NETNS,
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u-1",
    }
    assert asked.config == config(run_dir)
    assert asked.netns == os.stat(NETNS).st_ino, "the namespace itself came along"


def test_a_long_configuration_arrives_whole(run_dir: Path) -> None:
    long = b'{"cniVersion":"1.0.0","pad":"' + b"x" * 900_000 + b'"}'
    with FakeAgent(run_dir) as agent:
        done = call(BINARY, POD.environment("ADD"), config(run_dir, long))
    assert done.stdout == long + b"\n"
    assert agent.asked[0].config == config(run_dir, long)


def test_a_held_pod_is_an_error_in_the_agents_words(run_dir: Path) -> None:
    with FakeAgent(run_dir, json.dumps(HOUR_LONG).encode()):
        assert ask("ADD", config(run_dir)) == (HELD, HOUR_LONG)


@pytest.mark.parametrize("command", ["DEL", "GC"])
@pytest.mark.parametrize("answer", [b"pass", json.dumps(HOUR_LONG).encode(), b"", b"nonsense"])
def test_cleaning_up_always_works(run_dir: Path, command: str, answer: bytes) -> None:
    with FakeAgent(run_dir, answer) as agent:
        assert ask(command, config(run_dir)) == (PASS, None)
    assert [asked.variables["CNI_COMMAND"] for asked in agent.asked] == [command]


@pytest.mark.parametrize(("answer", "code"), [(b"pass", PASS), (json.dumps(HOUR_LONG).encode(), HELD), (b"", PASS)])
def test_check_fails_only_by_the_agents_word(run_dir: Path, answer: bytes, code: int) -> None:
    with FakeAgent(run_dir, answer):
        assert ask("CHECK", config(run_dir))[0] == code


def test_a_network_namespace_that_cannot_be_opened_is_for_the_agent_to_judge(run_dir: Path) -> None:
    with FakeAgent(run_dir) as agent:
        for netns in ("/nowhere", ""):
            pod = Attachment(container="c", netns=netns, namespace="shop")
            assert ask("ADD", config(run_dir), pod)[0] == PASS
    assert [asked.netns for asked in agent.asked] == [0, 0]


@pytest.mark.parametrize(
    "args", ["", "FOO=1", "K8S_POD_NAMESPACE=", "XK8S_POD_NAMESPACE=shop", "K8S_POD_NAMESPACE=A B"]
)
def test_who_is_no_pod_of_kubernetes_is_nobody_of_ours(run_dir: Path, args: str) -> None:
    pod = Attachment(container="c", netns=NETNS, more={"CNI_ARGS": args})
    with FakeAgent(run_dir, json.dumps(HOUR_LONG).encode()) as agent:
        assert ask("ADD", config(run_dir), pod) == (PASS, json.loads(RESULT))
    assert agent.asked == []


# Without one


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["mesh shop"], HELD),
        (["outside shop"], PASS),
        (["outside sho", "outside shopp", "outside xshop"], HELD),
        (["outside other", "mesh another"], HELD),
        ([], HELD),
    ],
    ids=["in the mesh", "outside", "names like it", "not named", "nothing"],
)
def test_the_file_decides_while_no_agent_is_there(run_dir: Path, impatient: Path, lines: list[str], code: int) -> None:
    write_namespaces(run_dir, *lines)
    exit_code, said = ask("ADD", config(run_dir), program=impatient)
    assert exit_code == code
    if code == HELD:
        assert said["code"] == 11
        assert "never runs outside the mesh" in said["msg"]
        assert "namespace shop is " in said["details"]
    else:
        assert said == json.loads(RESULT)


def test_without_a_file_everybody_waits(run_dir: Path, impatient: Path) -> None:
    assert ask("ADD", config(run_dir), program=impatient)[1]["code"] == 11


def test_a_file_of_another_version_says_nothing(run_dir: Path, impatient: Path) -> None:
    write_namespaces(run_dir, "outside shop", version="ambient-cni 2")
    assert ask("ADD", config(run_dir), program=impatient)[0] == HELD


@pytest.mark.parametrize(
    ("exempt", "code"), [("shop", PASS), ("kube-system shop", PASS), ("shops sho", HELD), ("", HELD)]
)
def test_an_exempt_namespace_needs_no_file(run_dir: Path, impatient: Path, exempt: str, code: int) -> None:
    assert ask("ADD", config(run_dir, exempt=exempt), program=impatient)[0] == code


def test_what_is_outside_does_not_wait_at_all(run_dir: Path) -> None:
    write_namespaces(run_dir, "outside shop")
    before = time.monotonic()
    assert ask("ADD", config(run_dir))[0] == PASS
    assert time.monotonic() - before < 0.5


@pytest.fixture
def pod_logs(run_dir: Path) -> Path:
    """kubelet's directories, one for each pod of this node."""
    folder = run_dir / "logs"
    folder.mkdir()
    for name in ("kube-system_dns-x1_u1", "ambient-system_ambient-control-x2_u2", "shop_web_u3"):
        (folder / name).mkdir()
    return folder


def without_an_agent(run_dir: Path, pod_logs: Path, *, for_s: float, program: Path) -> int:
    """How a new pod fares so long after the last sign of an agent."""
    then = time.time() - for_s
    os.utime(run_dir, (then, then))
    return ask("ADD", config(run_dir, agents=f"{pod_logs}/ambient-system_ambient-agent-"), program=program)[0]


LONG_S = 3600.0


@pytest.mark.parametrize(
    ("lines", "for_s", "code"),
    [
        (["mesh other"], LONG_S, PASS),
        (None, LONG_S, PASS),
        (None, -LONG_S, PASS),
        (["mesh shop"], LONG_S, HELD),
        (["mesh other"], 0.0, HELD),
        (None, 0.0, HELD),
    ],
    ids=["unknown", "no file", "a clock that was set", "in the mesh", "unknown, just now", "no file, just now"],
)
def test_where_no_agent_belongs_any_more_nobody_waits_but_the_mesh(
    run_dir: Path, pod_logs: Path, impatient: Path, lines: list[str] | None, for_s: float, code: int
) -> None:
    if lines is not None:
        write_namespaces(run_dir, *lines)
    assert without_an_agent(run_dir, pod_logs, for_s=for_s, program=impatient) == code


def test_an_agents_pod_that_does_not_start_is_waited_for_all_the_same(
    run_dir: Path, pod_logs: Path, impatient: Path
) -> None:
    (pod_logs / "ambient-system_ambient-agent-x4_u4").mkdir()
    assert without_an_agent(run_dir, pod_logs, for_s=LONG_S, program=impatient) == HELD


def test_what_kubelet_has_and_cannot_be_looked_at_may_be_an_agent(run_dir: Path, impatient: Path) -> None:
    assert without_an_agent(run_dir, run_dir / "nowhere", for_s=LONG_S, program=impatient) == HELD


def test_where_no_agent_belongs_an_agent_is_asked_if_there_is_one(run_dir: Path, pod_logs: Path) -> None:
    with FakeAgent(run_dir, json.dumps(HOUR_LONG).encode()):
        assert without_an_agent(run_dir, pod_logs, for_s=LONG_S, program=BINARY) == HELD


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC"])
def test_nothing_else_fails_or_waits_for_want_of_an_agent(run_dir: Path, command: str) -> None:
    before = time.monotonic()
    assert ask(command, config(run_dir)) == (PASS, None)
    assert time.monotonic() - before < 0.5


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]"])
def test_a_del_that_makes_no_sense_is_a_del(stdin: bytes) -> None:
    assert ask("DEL", stdin) == (PASS, None)


def test_once_the_mesh_is_removed_everybody_passes_unasked(run_dir: Path) -> None:
    write_namespaces(run_dir, "mesh shop")
    (run_dir / "uninstalled").touch()
    with FakeAgent(run_dir, json.dumps(HOUR_LONG).encode()) as agent:
        assert ask("ADD", config(run_dir))[0] == PASS
    assert agent.asked == []


# With one that fails


@pytest.mark.parametrize("answer", [b"", b"pas", b"passed", b'{"code": 11', b"{}", b"x" * 20_000])
def test_what_is_no_answer_counts_as_none(run_dir: Path, impatient: Path, answer: bytes) -> None:
    write_namespaces(run_dir, "mesh shop")
    with FakeAgent(run_dir, answer):
        code, said = ask("ADD", config(run_dir), program=impatient)
    assert (code, said["code"]) == (HELD, 11)
    write_namespaces(run_dir, "outside shop")
    with FakeAgent(run_dir, answer):
        assert ask("ADD", config(run_dir), program=impatient)[0] == PASS


def test_an_agent_that_hangs_holds_up_the_mesh_until_its_time_is_over_and_the_rest_for_a_moment(
    run_dir: Path, impatient: Path
) -> None:
    took = {}
    for standing in ("mesh", "outside"):
        write_namespaces(run_dir, f"{standing} shop")
        with FakeAgent(run_dir, None):
            before = time.monotonic()
            took[standing] = ask("ADD", config(run_dir), program=impatient)[0], time.monotonic() - before
    second = native.SHORT_SECOND / 1000
    assert took["mesh"][0] == HELD
    assert took["mesh"][1] > 19 * second
    assert took["outside"][0] == PASS
    assert 2 * second < took["outside"][1] < 15 * second


def test_a_namespace_that_joins_while_its_pod_waits_is_the_meshs(run_dir: Path, impatient: Path) -> None:
    write_namespaces(run_dir, "outside shop")

    def join(_: int) -> None:
        write_namespaces(run_dir, "mesh shop")  # what an agent does that finds the pod's own label

    with FakeAgent(run_dir, join):
        assert ask("ADD", config(run_dir), program=impatient)[0] == HELD


def test_an_agent_that_dies_over_the_question_is_asked_again(run_dir: Path, impatient: Path) -> None:
    write_namespaces(run_dir, "mesh shop")
    with FakeAgent(run_dir, lambda before: b"" if before < 2 else b"pass") as agent:
        assert ask("ADD", config(run_dir), program=impatient)[0] == PASS
    assert len(agent.asked) == 3
