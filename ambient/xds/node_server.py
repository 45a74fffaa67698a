"""The control plane's side of `ambient.v1.Nodes`: who reports, for which node. What a report leads to is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import grpc

from ambient.xds import caller as callers
from ambient.xds import nodes
from ambient.xds.proto import nodes_pb2 as pb

MAX_PODS = 5_000  # of one node; kubelet's default is 110


class ReportNotApplied(Exception):
    """Not, or not wholly, acted upon; worth another try. The text says what failed."""


Apply = Callable[[str, nodes.Report], Awaitable[Iterable[nodes.PodRef]]]
"""(node, report) -> the pods that are not known on this node. Raises ReportNotApplied."""


class NodeService:
    def __init__(self, *, authenticate: callers.Authenticate, apply: Apply) -> None:
        self._authenticate = authenticate
        self._apply = apply

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a server."""
        method = grpc.unary_unary_rpc_method_handler(
            self._report,
            request_deserializer=pb.NodeReport.FromString,
            response_serializer=pb.NodeReportResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(nodes.SERVICE, {"Report": method})

    async def _report(self, request: pb.NodeReport, context: callers.Context) -> pb.NodeReportResponse:
        caller = await callers.admit(context, self._authenticate)
        if len(request.captured) + len(request.failures) > MAX_PODS:
            text = f"a report on {len(request.captured)} pods and {len(request.failures)} failures; {MAX_PODS} at most"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        try:
            unknown = await self._apply(caller.node, _read(request))
        except ReportNotApplied as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.NodeReportResponse(unknown=[nodes.to_wire(pod) for pod in unknown])


def _read(request: pb.NodeReport) -> nodes.Report:
    failures = (nodes.Failure(nodes.from_wire(each.pod), each.reason, each.message) for each in request.failures)
    return nodes.Report(
        captured=frozenset(nodes.from_wire(each) for each in request.captured), failures=tuple(failures)
    )
