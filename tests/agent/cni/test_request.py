"""The plugin's message is read as the CNI specification has it; what is none is refused with its code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.agent.cni import request
from ambient.agent.cni.request import Refusal
from ambient.model.mesh import address

from .builders import a_message

POD_SIDE, HOST_SIDE = {"name": "eth0", "sandbox": "/run/netns/x"}, {"name": "veth0"}


def test_a_message_names_command_sandbox_and_pod() -> None:
    read = request.read(a_message({"cniVersion": "1.1.0"}))
    assert (read.command, read.container, read.pod, read.uid, read.version) == (
        "ADD",
        "c1",
        "shop/web",
        "uid-web",
        "1.1.0",
    )
    assert (read.addresses, read.valid) == ((), None)


def test_what_a_runtime_does_not_say_is_empty() -> None:
    read = request.read(a_message(CNI_ARGS="", CNI_CONTAINERID=""))
    assert (read.container, read.pod, read.uid) == ("", "/", "")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"ips": [{"address": "10.0.0.5/24"}]}, ["10.0.0.5"]),
        (
            {"ips": [{"version": "4", "address": "10.0.0.5/24", "interface": 1}], "interfaces": [HOST_SIDE, POD_SIDE]},
            ["10.0.0.5"],
        ),
        ({"ips": [{"address": "10.0.0.1/24", "interface": 0}], "interfaces": [HOST_SIDE, POD_SIDE]}, []),
        ({"ips": [{"address": "10.0.0.5/24", "interface": -1}], "interfaces": [HOST_SIDE]}, ["10.0.0.5"]),
        ({"ips": [{"address": "fd00::5/64"}, {"address": "10.0.0.5/24"}]}, ["fd00::5", "10.0.0.5"]),
        ({"ips": [{"address": "10.0.0.5/24"}, {"address": "10.0.0.6/24"}]}, ["10.0.0.5"]),
        ({"ips": []}, []),
        ({"ips": None}, []),
        ({}, []),
    ],
    ids=["1.0", "0.4", "the host's", "of no interface", "both families", "two of one", "none", "null", "nothing"],
)
def test_the_pods_addresses_are_those_inside_it(result: dict[str, Any], expected: list[str]) -> None:
    read = request.read(a_message({"cniVersion": "1.0.0", "prevResult": result}))
    assert read.addresses == tuple(map(address, expected))


@pytest.mark.parametrize("ips", [[{}], [{"address": "x/24"}], [1], 1, [{"address": "10.0.0.5/24", "interface": 7}]])
def test_a_result_that_cannot_be_read_is_refused(ips: object) -> None:
    with pytest.raises(Refusal, match="previous plugin's result") as caught:
        request.read(a_message({"prevResult": {"ips": ips}}))
    assert caught.value.code == 6


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 4),
        (b"\0\0{}", 4),
        (a_message(AMBIENT_CNI="2"), 4),
        (a_message(CNI_CONTAINERID="../x"), 4),
        (a_message(b"{"), 6),
        (a_message(b"[]"), 6),
        (a_message(b"\xff"), 6),
    ],
    ids=["empty", "no variables", "another format", "a path", "half", "a list", "no text"],
)
def test_what_is_no_message_is_refused_with_a_code(message: bytes, code: int) -> None:
    with pytest.raises(Refusal, match=r"^ambient: ") as caught:
        request.read(message)
    assert caught.value.code == code


def test_gc_says_who_is_there() -> None:
    body = {
        "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth0"}]
    }
    assert request.read(a_message(body, CNI_COMMAND="GC")).valid == {"a", "b"}
    assert request.read(a_message({"cni.dev/valid-attachments": []})).valid == frozenset()


def test_an_error_is_what_the_specification_wants() -> None:
    told = json.loads(request.error(Refusal(11, "ambient: wait", "for it"), "0.4.0"))
    assert told == {"cniVersion": "0.4.0", "code": 11, "msg": "ambient: wait", "details": "for it"}
