"""What telling one more agent of a change costs: counted, from publish() to the bytes, and from its bytes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import h2.config
import h2.connection
import h2.events

from ambient.xds import names
from ambient.xds.call import PREFIX_BYTES, Messages
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.server import SERVICE, DiscoveryServer
from ambient.xds.serving import Connection, Server
from tests import costs
from tests.model.builders import a_pod, a_world

from .replica import TOKEN, by_token, eventually

TOLD, HEARD = 200, 150  # steps for each agent: found 156 and 106; with everything through h2 337 and 450


class Agent(asyncio.Transport):
    """A client without TLS and socket; what the server writes waits here."""

    def __init__(self, server: Server) -> None:
        super().__init__({"peername": ("test", 1), "ssl_object": self})
        self.connection = Connection(server)
        self._messages = Messages()
        self._written: list[bytes] = []
        self.connection.connection_made(self)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration())
        self._http.initiate_connection()
        head = {":method": "POST", ":scheme": "https", ":path": f"/{SERVICE}/DeltaAggregatedResources"}
        head |= {":authority": "a", "content-type": "application/grpc", "authorization": f"Bearer {TOKEN}"}
        self._http.send_headers(1, list(head.items()))

    def selected_alpn_protocol(self) -> str:
        return "h2"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written.append(bytes(data))

    def say(self, request: pb.DeltaDiscoveryRequest) -> bytes:
        """What goes to the server."""
        body = request.SerializeToString()
        self._http.send_data(1, b"\0" + len(body).to_bytes(PREFIX_BYTES - 1, "big") + body)
        return self._http.data_to_send()

    def answers(self) -> list[bytes]:
        """To everything that came: that it is taken."""
        events: list[Any] = self._http.receive_data(b"".join(self._written))
        self._written.clear()
        found = []
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                for message in self._messages.feed(event.data):
                    said = pb.DeltaDiscoveryResponse.FromString(message)
                    found.append(pb.DeltaDiscoveryRequest(type_url=said.type_url, response_nonce=said.nonce))
        return [self.say(each) for each in found]


async def connected(discovery: DiscoveryServer, count: int) -> list[Agent]:
    """Agents that have been told everything."""
    server = Server(discovery.handlers())
    agents = [Agent(server) for _ in range(count)]
    for agent in agents:
        for url in names.TYPES:
            node = pb.Node(client_features=[names.MORE])
            agent.connection.data_received(agent.say(pb.DeltaDiscoveryRequest(type_url=url, node=node)))
    await eventually(lambda: discovery.counts.connected == count)
    for agent in agents:
        while answers := agent.answers():
            for each in answers:
                agent.connection.data_received(each)
    return agents


async def costs_of(count: int) -> tuple[costs.Cost, costs.Cost]:
    """Of telling so many agents of a change, and of hearing that they took it."""
    discovery = DiscoveryServer(by_token, "test")
    pod = a_pod(ready=True)
    discovery.publish(a_world(pod))
    agents = await connected(discovery, count)
    told = costs.of(lambda: discovery.publish(a_world(replace(pod, ready=False))))
    said = [(agent, agent.answers()) for agent in agents]
    assert [len(answers) for _, answers in said] == [1] * count

    def hear() -> None:
        for agent, (answer,) in said:
            agent.connection.data_received(answer)

    heard = costs.of(hear)
    assert not any(agent.answers() for agent in agents)
    return told, heard


def test_one_more_agent_costs_few_steps() -> None:
    few, many = asyncio.run(costs_of(5)), asyncio.run(costs_of(25))
    told, heard = ((more.steps - less.steps) / 20 for less, more in zip(few, many, strict=True))
    assert told < TOLD
    assert heard < HEARD
