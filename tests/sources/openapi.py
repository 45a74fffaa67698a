"""What the API server would say of a policy, by its schema in `daemonset.yaml`: OpenAPI and CEL as they stand there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "daemonset.yaml"
Schema = Mapping[str, Any]
TYPES: Mapping[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
SAID = {
    "type",
    "description",
    "properties",
    "additionalProperties",
    "required",
    "items",
    "enum",
    "pattern",
    "minLength",
}
SAID |= {"maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum"}
SAID |= {"x-kubernetes-validations"}


def _is_network(text: str) -> bool:
    """CEL's isIP and isCIDR: no zone, no netmask, no IPv4-mapped address."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    plain = re.fullmatch(r"[0-9a-fA-F:.]+(/(0|[1-9][0-9]*))?", text)
    return bool(plain) and not (network.version == 6 and network.network_address.ipv4_mapped)


# Every rule that stands there; one that is not known here is an error.
RULES: Mapping[str, Callable[[Any], bool]] = {
    "!(has(self.selector) && (has(self.targetRefs) || has(self.targetRef)))": lambda it: (
        not ("selector" in it and ("targetRefs" in it or "targetRef" in it))
    ),
    "self.all(key, key != '' && !key.contains('*'))": lambda it: all(key and "*" not in key for key in it),
    "!((has(self.serviceAccounts) || has(self.notServiceAccounts)) && "
    "(has(self.principals) || has(self.namespaces)))": lambda it: (
        not (("serviceAccounts" in it or "notServiceAccounts" in it) and ("principals" in it or "namespaces" in it))
    ),
    "has(self.values) || has(self.notValues)": lambda it: "values" in it or "notValues" in it,
    "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && "
    "size(self.selector.matchLabels) > 0)": lambda it: (
        "portLevelMtls" not in it or bool(it.get("selector", {}).get("matchLabels"))
    ),
    "self.all(port, port.matches('^[1-9][0-9]{0,4}$') && int(port) < 65536)": lambda it: all(
        re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536 for port in it
    ),
    "has(self.mtls) || has(self.unknownDestinations)": lambda it: "mtls" in it or "unknownDestinations" in it,
    "!has(self.allowed) || (has(self.unknownDestinations) && self.unknownDestinations == 'Refuse')": lambda it: (
        "allowed" not in it or it.get("unknownDestinations") == "Refuse"
    ),
    "isIP(self) || isCIDR(self)": _is_network,
}


def schemas() -> Mapping[str, Schema]:
    """Of `spec`, by kind."""
    found = {}
    for body in yaml.safe_load_all(FILE.read_text()):
        if body and body["kind"] == "CustomResourceDefinition":
            (version,) = body["spec"]["versions"]
            properties = version["schema"]["openAPIV3Schema"]["properties"]
            found[body["spec"]["names"]["kind"]] = properties["spec"]
    return found


def refusals(schema: Schema, value: object, path: str = "spec") -> Iterator[str]:
    """What is wrong; fields first, then what holds between them, as the API server does it."""
    assert schema.keys() <= SAID, f"{path}: nobody here knows {schema.keys() - SAID}"
    if not TYPES[schema["type"]](value):
        yield f"{path}: not of type {schema['type']}"
        return
    inside = list(_inside(schema, value, path))
    yield from inside
    if not inside:
        for rule in schema.get("x-kubernetes-validations", ()):
            if not RULES[" ".join(rule["rule"].split())](value):
                yield f"{path}: {rule['message']}"


def _inside(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: none of {schema['enum']}"
    sizes = {"string": "Length", "array": "Items", "object": "Properties"}
    size = value if schema["type"] == "integer" else len(value)
    least, most = (
        ("minimum", "maximum")
        if schema["type"] == "integer"
        else (
            f"min{sizes[schema['type']]}",
            f"max{sizes[schema['type']]}",
        )
    )
    if not schema.get(least, size) <= size <= schema.get(most, size):
        yield f"{path}: {size} is out of bounds"
    match value:
        case str() if "pattern" in schema and not re.search(re.sub(r"\$$", r"\\Z", schema["pattern"]), value):
            yield f"{path}: does not match"
        case list():
            for index, item in enumerate(value):
                yield from refusals(schema["items"], item, f"{path}[{index}]")
        case dict():
            for name in schema.get("required", ()):
                if name not in value:
                    yield f"{path}.{name}: required"
            for name, item in value.items():
                inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                if inner is None:
                    yield f"{path}.{name}: no such field"
                else:
                    yield from refusals(inner, item, f"{path}.{name}")
