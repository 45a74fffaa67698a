"""The mesh in seven claims, each tried on a running lab and shown with its proof. Prints, and is true only if all held.

The lab is examples/shop.yaml: `client` on node1 asks `web` on node2; nothing in the mesh at first. Every claim leaves
the shop as the next one needs it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ambient.lab.chat import Chat
from ambient.lab.client import Lab
from ambient.lab.errors import LabError
from ambient.lab.records import Record, Records
from ambient.lab.wiretap import Wiretap
from ambient.model.mesh import TUNNEL_PORT

CLIENT, WEB, STRANGER = "shop/client", "shop/web", "outside/stranger"
SECRET = "42 apples"
MEGABYTES = 120
RATE = "12M"  # so that the download outlasts an agent's restart
ENGINE_BACK_S = 1.0
CUT_WITHIN_S = 1.0


class DidNotHold(Exception):
    """What was seen instead."""


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise DidNotHold(otherwise)


class Demo:
    """Claims are methods: the docstring is the claim, what they return is the proof, line by line."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        pods = lab.status()["pods"]
        self.client_ip: str = pods[CLIENT]["ips"][0]
        self.web_ip: str = pods[WEB]["ips"][0]
        self.lives = _lives(lab)

    @property
    def claims(self) -> Sequence[Callable[[], list[str]]]:
        return self.before, self.labelled, self.denied, self.strict, self.rejudged, self.direct, self.killed

    def before(self) -> list[str]:
        """before: what client and web say can be read on the underlay"""
        with Wiretap(self.lab, "node1") as tap:
            answer = self.ask(CLIENT)
        found = next(tap.said(SECRET.encode()), None)
        check(found, f"{SECRET!r} was not seen on the underlay although nothing protects it")
        return [f'read on the underlay: {found}  "{answer}"']

    def labelled(self) -> list[str]:
        """a label, and the same request of the same running pods is mutual TLS"""
        self.lab.label("ns/shop", "ambient.dev/mode=enabled")
        with Records(self.lab, "node2") as records, Wiretap(self.lab, "node1") as tap:
            answer = self.ask(CLIENT)
            record = _wanted(records, lambda row: row["verdict"] == "allow" and row["source_pod"] == "client")
        check(_lives(self.lab) == self.lives, "a pod was restarted")
        check(not list(tap.said(SECRET.encode())), f"{SECRET!r} can still be read on the underlay")
        check(
            tap.ports() == {TUNNEL_PORT}, f"TCP ports on the underlay: {sorted(tap.ports())}, not {TUNNEL_PORT} alone"
        )
        # Every TLS record, of a handshake (22) or of data (23), starts with its type and a 3.
        begins = [bytes(payload[:2]) for payload in tap.seen.values() if payload]
        check(set(begins) <= {b"\x16\x03", b"\x17\x03"}, f"what is on the tunnel port is not TLS: it begins {begins}")
        check(f"hello {self.client_ip}," in answer, f"web saw another client than {self.client_ip}: {answer!r}")
        moved = sum(map(len, tap.seen.values()))
        return [
            f"on the underlay: {moved} bytes, TLS on port {TUNNEL_PORT} only, the answer is not among them",
            f'web still sees its real client: "{answer}"; no pod was restarted',
            f"{record['source_principal']} -> {record['destination_principal']}",
        ]

    def denied(self) -> list[str]:
        """a DENY policy refuses, and the record names the rule"""
        policy = _policy("no-client", "web", "DENY", "client")
        self.lab.apply(policy)
        with Records(self.lab, "node2") as records:
            said = self.refused(CLIENT)
            record = _wanted(records, lambda row: row["verdict"] == "deny")
        check("shop/no-client" in record["rule"], f"refused by another rule: {record['rule']}")
        self.lab.delete(policy)
        self.ask(CLIENT)
        return [f"client: {said}", f"record: {record['reason']}, {record['rule']}; without it the request works again"]

    def strict(self) -> list[str]:
        """STRICT refuses plaintext from a client outside the mesh"""
        permissive = self.ask(STRANGER, "web.shop")
        self.lab.apply(
            {
                "apiVersion": "security.istio.io/v1",
                "kind": "PeerAuthentication",
                "metadata": {"name": "strict", "namespace": "shop"},
                "spec": {"mtls": {"mode": "STRICT"}},
            }
        )
        with Records(self.lab, "node2") as records:
            said = self.refused(STRANGER, "web.shop")
            record = _wanted(records, lambda row: row["verdict"] == "deny")
        check(record["reason"] == "strict_mtls", f"refused for another reason: {record['reason']}")
        self.ask(CLIENT)
        return [
            f'stranger before: "{permissive}"; now: {said}',
            f"record: {record['reason']}, {record['rule']}; the client inside the mesh is served",
        ]

    def rejudged(self) -> list[str]:
        """taking a policy away cuts the open connection it allowed, and keeps the others"""
        clients, webs = _policy("client-may", "api", "ALLOW", "client"), _policy("web-may", "api", "ALLOW", "web")
        self.lab.apply([clients, webs])
        with (
            Records(self.lab, "node2") as records,
            Chat(self.lab, CLIENT, "api", 7000) as cut,
            Chat(self.lab, WEB, "api", 7000) as kept,
        ):
            check(cut.say("a") == "a" and kept.say("b") == "b", "the conversations did not start")
            began = time.monotonic()
            self.lab.delete(clients)
            waited = cut.until_cut(CUT_WITHIN_S)
            took = time.monotonic() - began
            check(waited is not None, f"client's conversation still stands {took:.1f} s later")
            record = _wanted(records, lambda row: row["source_pod"] == "client" and row["destination_pod"] == "api")
            check(kept.say("c") == "c", "web's conversation was cut although its policy stands")
            self.lab.delete(webs)
            check(kept.say("d") == "d", "web's conversation was cut although nothing forbids it")
        return [
            f"client's was cut within {took * 1000:.0f} ms: {record['end']}, {record['reason']}, {record['rule']}",
            "web's went on, with its own policy and without any",
        ]

    def direct(self) -> list[str]:
        """two pods of one node talk with no proxy between them, and are recorded and policed all the same"""
        with Chat(self.lab, WEB, "api", 7000) as first:  # carried by the engine: by it the agent decides
            check(first.say("a") == "a", "the conversation did not start")
        policy = _policy("no-web", "api", "DENY", "web")
        with Records(self.lab, "node2") as records, Chat(self.lab, WEB, "api", 7000) as talk:
            check(talk.say("b") == "b", "the second conversation did not start")
            began = time.monotonic()
            self.lab.apply(policy)
            waited = talk.until_cut(CUT_WITHIN_S)
            took = time.monotonic() - began
            check(waited is not None, f"web's conversation still stands {took:.1f} s later")
            record = _wanted(records, lambda row: row["path"] == "direct")
        self.lab.delete(policy)
        return [
            f"{record['source_principal']} -> {record['destination_principal']}: {record['bytes_sent']} bytes, "
            "known from the kernel",
            f"it was cut within {took * 1000:.0f} ms: {record['end']}, {record['reason']}, {record['rule']}",
        ]

    def killed(self) -> list[str]:
        """kill -9 of the agents loses not a byte; the engine is back at once, and nothing leaks meanwhile"""
        digest = _digest(MEGABYTES)
        url = f"http://web/?megabytes={MEGABYTES}"
        command = ["sh", "-c", f"curl -sS --limit-rate {RATE} '{url}' | sha256sum"]
        download = self.lab.popen(CLIENT, command, stdout=subprocess.PIPE, text=True)
        with Chat(self.lab, CLIENT, "api", 7000) as chat:
            check(chat.say("before") == "before", "the conversation did not start")
            old = self.kill("agent_pid")
            check(chat.say("while they are dead") == "while they are dead", "the conversation was lost with the agents")
            self.lab.wait(timeout=15)
            check(download.poll() is None, "the download ended before the agents were back")
            check(chat.say("after") == "after", "the conversation was lost when the agents came back")
            said, _ = download.communicate(timeout=30)
            check(said.split()[:1] == [digest], "the download is not what was sent")
        with Wiretap(self.lab, "node1") as tap:
            self.kill("engine_pid")
            took = self.back()
        check(not list(tap.said(SECRET.encode())), "plaintext was on the underlay while the engines were dead")
        check(took < ENGINE_BACK_S, f"it took {took * 1000:.0f} ms until a request was answered again")
        return [
            f"agents {old[0]} and {old[1]} killed: {MEGABYTES} MB came whole (sha256), the conversation went on",
            f"engines killed: the next request was answered after {took * 1000:.0f} ms, no plaintext on the underlay",
        ]

    # Acts

    def ask(self, pod: str, host: str = "web") -> str:
        """A request that must work."""
        done = self.curl(pod, host)
        check(done.returncode == 0, f"{pod} -> {host}: {done.stderr.strip()}")
        return done.stdout.strip()

    def refused(self, pod: str, host: str = "web") -> str:
        """A request that must not: what curl says."""
        done = self.curl(pod, host)
        check(done.returncode != 0, f"{pod} -> {host} was answered: {done.stdout.strip()!r}")
        return done.stderr.strip().removeprefix("curl: ")

    def curl(self, pod: str, host: str) -> subprocess.CompletedProcess[str]:
        return self.lab.exec(pod, "curl", "-4", "-sS", "-m", "5", f"http://{host}/", check=False)

    def kill(self, what: str) -> list[int]:
        """kill -9 on every node."""
        pids = [node[what] for node in self.lab.status()["nodes"].values()]
        check(all(pids), f"{what}: {pids}")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def back(self) -> float:
        """Seconds until a request is answered, asking again and again."""
        began = time.monotonic()
        while time.monotonic() - began < 15:
            if self.curl(CLIENT, "web").returncode == 0:
                return time.monotonic() - began
        raise DidNotHold("no request was answered within 15 s of the engines' death")


def run(examples: Path, name: str) -> bool:
    """Make the lab, try the claims, take it down. True if every claim held."""
    began = time.monotonic()
    lab = Lab(name)
    with lab:
        click.echo(f"making two nodes and a shop ({examples}) ...")
        lab.up(examples)
        click.echo(f"up in {time.monotonic() - began:.1f} s")
        demo = Demo(lab)
        verdicts = [_try(number, claim) for number, claim in enumerate(demo.claims, 1)]  # all of them, whatever fails
    summary = "all seven claims held" if all(verdicts) else "NOT ALL CLAIMS HELD"
    click.echo(f"lab removed; {summary}; {time.monotonic() - began:.0f} s in all")
    return all(verdicts)


def _try(number: int, claim: Callable[[], list[str]]) -> bool:
    """One claim; a failure is shown, and the next is tried all the same."""
    try:
        proof, held = claim(), True
    except (DidNotHold, LabError, ConnectionError, subprocess.SubprocessError) as error:
        proof, held = str(error).splitlines(), False
    mark = click.style("held", fg="green") if held else click.style("DID NOT HOLD", fg="red")
    click.echo(f"{number}. {claim.__doc__}: {mark}")
    for line in proof:
        click.echo(f"     {line}")
    return held


def _wanted(records: Records, matches: Callable[[Record], bool]) -> Record:
    found = records.first(lambda row: row.get("reporter") == "destination" and matches(row))
    if found is None:
        raise DidNotHold("node2's agent wrote no such access record")
    return found


def _lives(lab: Lab) -> list[tuple[int, int]]:
    """What would be different had a pod been restarted."""
    return [(pod["pause_pid"], pod["restarts"]) for pod in lab.status()["pods"].values()]


def _policy(name: str, server: str, action: str, client: str) -> dict[str, object]:
    source = {"principals": [f"cluster.local/ns/shop/sa/{client}"]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": server}},
            "action": action,
            "rules": [{"from": [{"source": source}]}],
        },
    }


def _digest(megabytes: int) -> str:
    """Of what web sends for /?megabytes=N."""
    digest = hashlib.sha256()
    for number in range(megabytes):
        digest.update(bytes([number % 256]) * 2**20)
    return digest.hexdigest()
