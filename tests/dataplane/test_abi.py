"""engine/abi.h and its Python mirror say the same: sizes, offsets, numbers."""

from __future__ import annotations

import ctypes
import enum
import pathlib
import re
import subprocess

import pytest

from ambient.dataplane import abi, versions

from . import frozen

HEADER = pathlib.Path(__file__).parent.parent.parent / "engine" / "abi.h"

# Names differ only where Python has no such name (`from`) or the header shortens.
STRUCTS = {
    "amb_head": abi.Head,
    "amb_addr": abi.Addr,
    "amb_ref": abi.Ref,
    "amb_pod_ref": abi.PodRef,
    "amb_hello": abi.Hello,
    "amb_accepted": abi.Accepted,
    "amb_tunnel_q": abi.TunnelQuestion,
    "amb_request": abi.Request,
    "amb_dial_failed": abi.DialFailed,
    "amb_conn": abi.Conn,
    "amb_answer_row": abi.AnswerRow,
    "amb_settings": abi.Settings,
    "amb_pod": abi.Pod,
    "amb_context": abi.Context,
    "amb_contexts": abi.Contexts,
    "amb_listen": abi.Listen,
    "amb_choice": abi.Choice,
    "amb_answer": abi.Answer,
    "amb_cut": abi.Cut,
    "amb_drain": abi.Drain,
    "amb_speaks": abi.Speaks,
    "amb_inventory": abi.Inventory,
    "amb_client_key": abi.ClientKey,
    "amb_client_value": abi.ClientValue,
}
ENUMS: dict[str, tuple[type[enum.IntEnum] | type[enum.IntFlag], str]] = {
    "amb_type": (abi.Type, "AMB_"),
    "amb_role": (abi.Role, "AMB_"),
    "amb_verdict": (abi.Verdict, "AMB_"),
    "amb_answer_flag": (abi.AnswerFlag, "AMB_"),
    "amb_choice_flag": (abi.ChoiceFlag, "AMB_"),
    "amb_settings_flag": (abi.SettingsFlag, "AMB_"),
    "amb_reason": (abi.Reason, "AMB_END_"),
}
LIMITS = ("ABI", "ABI_OLDEST", "PACKET_MAX", "MESSAGE_MAX", "FDS_MAX", "CHOICES_MAX")


def _source() -> str:
    """The header without comments."""
    return re.sub(r"//[^\n]*", "", HEADER.read_text())


def _enumerators(name: str) -> list[str]:
    body = re.search(rf"enum {name} \{{(.*?)\}};", _source(), re.DOTALL)
    assert body, f"no enum {name} in {HEADER}"
    return re.findall(r"\b(AMB_\w+)\b(?=\s*(?:=|,|$))", body[1].strip())


def _c_name(field: str) -> str:
    return field.removesuffix("_")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler says about the header: "struct", "struct.field", "struct.field#size", "ENUMERATOR"."""
    lines = []
    for struct, mirror in STRUCTS.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        for field in (_c_name(name) for name, *_ in mirror._fields_):
            lines.append(f'printf("{struct}.{field} %zu\\n", offsetof(struct {struct}, {field}));')
            lines.append(f'printf("{struct}.{field}#size %zu\\n", sizeof(((struct {struct} *)0)->{field}));')
    constants = [name for enumeration in ENUMS for name in _enumerators(enumeration)]
    lines += [f'printf("{name} %d\\n", {name});' for name in [*constants, *(f"AMB_{limit}" for limit in LIMITS)]]
    folder = tmp_path_factory.mktemp("abi")
    source, program = folder / "measure.c", folder / "measure"
    source.write_text(
        f'#include "{HEADER}"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in output.splitlines())}


def test_every_struct_of_the_header_is_mirrored() -> None:
    assert set(re.findall(r"struct (\w+) \{", _source())) == set(STRUCTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_size_and_offsets_of_the_header(name: str, measured: dict[str, int]) -> None:
    mirror = STRUCTS[name]
    assert ctypes.sizeof(mirror) == measured[name]
    for field, *_ in mirror._fields_:
        descriptor = getattr(mirror, field)
        assert descriptor.offset == measured[f"{name}.{_c_name(field)}"], field
        assert descriptor.size == measured[f"{name}.{_c_name(field)}#size"], field


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_no_hidden_padding(name: str) -> None:
    mirror = STRUCTS[name]
    assert sum(getattr(mirror, field).size for field, *_ in mirror._fields_) == ctypes.sizeof(mirror)


@pytest.mark.parametrize("name", ENUMS)
def test_an_enumeration_has_the_numbers_of_the_header(name: str, measured: dict[str, int]) -> None:
    mirror, prefix = ENUMS[name]
    theirs = {
        constant.removeprefix(prefix if constant.startswith(prefix) else "AMB_"): measured[constant]
        for constant in _enumerators(name)
    }
    assert {member.name: member.value for member in mirror} == theirs


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_that_of_the_header(name: str, measured: dict[str, int]) -> None:
    assert getattr(abi, name) == measured[f"AMB_{name}"]


def test_every_message_of_the_engine_has_a_body_to_read_it_by() -> None:
    assert set(abi.BODIES) == {kind for kind in abi.Type if kind < abi.Type.SETTINGS}


@pytest.mark.parametrize("name", frozen.FIELDS)
def test_no_field_moves_or_goes(name: str) -> None:
    mirror = STRUCTS[name]
    now = {
        f"{_c_name(field)}:{getattr(mirror, field).offset}+{getattr(mirror, field).size}"
        for field, *_ in mirror._fields_
    }
    assert set(frozen.FIELDS[name].split()) <= now


@pytest.mark.parametrize("name", frozen.NUMBERS)
def test_no_number_changes_its_meaning(name: str) -> None:
    assert set(frozen.NUMBERS[name].split()) <= {f"{each.name}={each.value}" for each in ENUMS[name][0]}


def test_of_every_message_there_is_a_least_size_and_engine_and_agent_agree_on_it() -> None:
    assert set(versions.LEAST) == set(abi.Type)
    table = (HEADER.parent / "messages.c").read_text()
    theirs = re.findall(r"\[AMB_(\w+)\] = \{\w+, (?:BODY\(\w+\)|0), (\d+), -?\d+\}", table)
    assert {name: int(size) for name, size in theirs} == {
        kind.name: size for kind, size in versions.LEAST.items() if kind >= abi.Type.SETTINGS
    }
    assert all(ctypes.sizeof(body) >= versions.LEAST[kind] for kind, body in abi.BODIES.items())


def test_what_is_more_than_version_3_had_is_said_to_nobody_who_speaks_that() -> None:
    assert all(abi.ABI_OLDEST < since <= abi.ABI for since in versions.SINCE.values())
    assert {kind for kind in abi.Type if kind > abi.Type.DRAIN} <= set(versions.SINCE)
