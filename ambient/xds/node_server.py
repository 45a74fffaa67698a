"""The control plane's side of `ambient.v1.Nodes`: who reports, for which node. What a report leads to is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from google.protobuf import message

from ambient.xds import caller as callers
from ambient.xds import nodes
from ambient.xds.call import Status
from ambient.xds.proto import nodes_pb2 as pb
from ambient.xds.served import Aborted, ServerCall
from ambient.xds.serving import Handlers, unary

MAX_PODS = 5_000  # of one node; kubelet's default is 110


class ReportNotApplied(Exception):
    """Not, or not wholly, acted upon; worth another try. The text says what failed."""


Apply = Callable[[str, nodes.Report], Awaitable[Iterable[nodes.PodRef]]]
"""(node, report) -> the pods that are not known on this node. Raises ReportNotApplied."""


class NodeService:
    def __init__(self, *, authenticate: callers.Authenticate, apply: Apply) -> None:
        self._authenticate = authenticate
        self._apply = apply

    def handlers(self) -> Handlers:
        """For a server."""
        return {f"/{nodes.SERVICE}/Report": unary(self._admit, self._report)}

    async def _admit(self, call: ServerCall) -> callers.Caller:
        return await callers.admit(call.metadata, self._authenticate)

    async def _report(self, data: bytes, caller: callers.Caller) -> bytes:
        try:
            request = pb.NodeReport.FromString(data)
        except message.DecodeError as error:
            raise Aborted(Status.INVALID_ARGUMENT, f"this is no NodeReport: {error}") from error
        if len(request.captured) + len(request.failures) > MAX_PODS:
            text = f"a report on {len(request.captured)} pods and {len(request.failures)} failures; {MAX_PODS} at most"
            raise Aborted(Status.INVALID_ARGUMENT, text)
        try:
            unknown = await self._apply(caller.node, _read(request))
        except ReportNotApplied as error:
            raise Aborted(Status.UNAVAILABLE, str(error)) from error
        return pb.NodeReportResponse(unknown=[nodes.to_wire(pod) for pod in unknown]).SerializeToString()


def _read(request: pb.NodeReport) -> nodes.Report:
    failures = (nodes.Failure(nodes.from_wire(each.pod), each.reason, each.message) for each in request.failures)
    return nodes.Report(
        captured=frozenset(nodes.from_wire(each) for each in request.captured), failures=tuple(failures)
    )
