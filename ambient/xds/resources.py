"""One resource: a noun's bytes, made once and shared by every stream; and a noun again. Pure.

A resource's version is a digest of its bytes: replicas that see the same World agree on every version, so that an agent
which moves from one to another is sent nothing it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import any_pb2, message

from ambient.model import mesh
from ambient.model.tables import Noun, key_of
from ambient.xds import names, nouns, policies, services, workloads
from ambient.xds.proto import authorization_pb2, discovery_pb2, noun_pb2, workload_pb2

VERSION_BYTES = 8  # a digest, so that versions of one name differ; nobody gains by a collision
_FIELD = bytes([discovery_pb2.DeltaDiscoveryResponse.RESOURCES_FIELD_NUMBER << 3 | 2])  # a length-delimited field


@dataclass(frozen=True, slots=True)
class Resource:
    version: str
    element: bytes  # of DeltaDiscoveryResponse.resources, tag and length included: concatenation makes the response


@dataclass(frozen=True, slots=True)
class Decoded:
    noun: Noun | mesh.MeshConfig | nouns.Roots | None  # None: of no concern to a World
    root_namespace: str = ""  # as far as the resource gives it away, for who is not told otherwise


def make(type_url: str, name: str, body: message.Message, aliases: Iterable[str] = ()) -> Resource:
    value = body.SerializeToString(deterministic=True)
    version = hashlib.blake2b(value, digest_size=VERSION_BYTES).hexdigest()
    element = discovery_pb2.Resource(
        version=version, resource=any_pb2.Any(type_url=type_url, value=value), name=name, aliases=aliases
    ).SerializeToString()
    return Resource(version, _FIELD + _varint(len(element)) + element)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def decode(type_url: str, resource: discovery_pb2.Resource) -> Decoded:
    """Raises ValueError, in a sentence, for what cannot be understood or is not what its name says."""
    value = resource.resource.value
    try:
        if resource.resource.type_url != type_url:
            raise ValueError(f"it is a {resource.resource.type_url!r}")
        if type_url == names.ADDRESS:
            found = _address(workload_pb2.Address.FromString(value))
        elif type_url == names.AUTHORIZATION:
            found = _authorization(authorization_pb2.Authorization.FromString(value))
        else:
            found = Decoded(nouns.decode(noun_pb2.Noun.FromString(value)))
    except message.DecodeError as error:
        raise ValueError(f"its bytes are no {type_url.rpartition('.')[2]}: {error}") from error
    _check_name(type_url, resource.name, found)
    return found


def _address(address: workload_pb2.Address) -> Decoded:
    match address.WhichOneof("type"):
        case "service":
            return Decoded(services.decode(address.service))
        case "workload":
            found = address.workload
            others = (name.partition("/")[0] for name in found.authorization_policies)
            root = next((namespace for namespace in others if namespace != found.namespace), "")
            return Decoded(workloads.decode(found), root)
    raise ValueError("it is neither a workload nor a Service")


def _authorization(policy: authorization_pb2.Authorization) -> Decoded:
    root = policy.namespace if policy.scope == authorization_pb2.GLOBAL else ""
    return Decoded(policies.decode(policy), root)


def _check_name(type_url: str, name: str, found: Decoded) -> None:
    """A resource is removed by its name alone: it must not stand for another noun."""
    expected = names.ref(type_url, name)
    if isinstance(found.noun, mesh.MeshConfig | nouns.Roots):
        if nouns.name(found.noun) != name:
            raise ValueError(f"it holds {nouns.name(found.noun)}")
    elif found.noun is not None and expected != (type(found.noun), key_of(found.noun)):
        raise ValueError(f"it holds the {type(found.noun).__name__} {key_of(found.noun)}")
