"""Who calls the control plane: a pod, proven by its token, which the API server judges (TokenReview).

What the API server said is remembered for a while, so that an agent costs it one review in five minutes; a pod that the
World has seen leave is asked about again at once. Who may do what is not decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn, Protocol

from ambient.control import api
from ambient.control.api import ApiError, Json, Kind
from ambient.control.strikes import Strikes
from ambient.identity import tokens
from ambient.model.world import World
from ambient.xds.caller import Caller, CannotAuthenticate, Metadata, Unauthenticated
from ambient.xds.served import PEER

AUDIENCE = "ambient-control"
RECHECK = timedelta(minutes=5)  # a yes is good for so long, without word from the World; in an outage until it expires
UNSEEN = timedelta(seconds=15)  # while the World does not have its pod: the API server, too, caches what it said
MARGIN = timedelta(seconds=60)  # before a token's end a yes is forgotten: clocks differ
REFUSED_FOR = timedelta(seconds=10)  # a no, and that there was no answer: whoever insists does not reach the API server
REMEMBERED = 10_000  # tokens: so many of those that are good, and as many others
REVIEWS = 16  # under way at once, of pods that the World has ...
UNEXPECTED = 4  # ... and of others: who invents pods keeps nobody waiting that has one
REVIEW_S = 5.0  # for one, with the wait for a place
_EXTRA = "authentication.kubernetes.io/"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What the API server said of a token."""

    until: datetime
    verdict: Caller | Unauthenticated
    expires: datetime  # the token
    seen: bool = False  # the World has the caller's pod


class Reviewer(Protocol):
    """The API server, as far as it is needed here."""

    async def create(self, kind: Kind, obj: Json) -> Json:
        """See api.Api."""


class Callers:
    def __init__(
        self,
        kubernetes: Reviewer,
        *,
        accounts: Iterable[str],
        world: Callable[[], World],
        audiences: Iterable[str] = (AUDIENCE,),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`accounts`: namespace/name of the ServiceAccounts that may call."""
        self._api = kubernetes
        self._subjects = {f"system:serviceaccount:{account.replace('/', ':')}" for account in accounts}
        self._audiences = frozenset(audiences)
        self._world = world
        self._now = now
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._strangers: OrderedDict[bytes, _Known] = OrderedDict()  # refused: they push out none of the known
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        self._places = {True: asyncio.Semaphore(REVIEWS), False: asyncio.Semaphore(UNEXPECTED)}
        self._strikes = Strikes()
        self._open: Counter[str] = Counter()  # questions of each peer
        self._answered = asyncio.Event()  # one of them; then another takes its place
        self.refused: Counter[str] = Counter()  # by reason

    async def authenticate(self, metadata: Metadata) -> Caller:
        """See caller.Authenticate."""
        token = _bearer(metadata)
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered(digest)
        if known is None:
            known = await self._ask_once(digest, token, metadata.get(PEER, ""))
        if isinstance(known.verdict, Unauthenticated):
            self.refused[known.verdict.reason] += 1
            raise Unauthenticated(known.verdict.reason, str(known.verdict))
        return known.verdict

    def _remembered(self, digest: bytes) -> _Known | None:
        memory = self._known if digest in self._known else self._strangers
        known = memory.get(digest)
        if known is None or known.until <= self._now():
            return None
        if isinstance(known.verdict, Caller):
            present = self._present(known.verdict)
            if known.seen and not present:
                known.until = self._now()  # the World saw it leave: what does the API server say?
                return None
            known.seen = present
        memory.move_to_end(digest)
        return known

    def _present(self, caller: Caller) -> bool:
        workload = self._world().workloads.get(f"{caller.namespace}/{caller.pod}")
        return workload is not None and workload.uid == caller.pod_uid

    async def _ask_once(self, digest: bytes, token: str, peer: str) -> _Known:
        """However many wait for the same answer. Raises CannotAuthenticate."""
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._ask(digest, token, peer), name="callers: review")
            self._asking[digest] = asking
            asking.add_done_callback(lambda task: self._asked(digest, task))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, task: asyncio.Task[_Known]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            task.exception()  # told to whoever waited; nobody does any more if they all gave up

    async def _ask(self, digest: bytes, token: str, peer: str) -> _Known:
        now = self._now()
        counts = digest not in self._known  # whatever else its peer says, that one was good
        try:
            claims = self._plausible(token, now)
            expires = datetime.fromtimestamp(claims.expires, UTC)
            async with self._turn(peer) if counts else contextlib.nullcontext():
                caller = self._judge(await self._review(token, self._expected(claims)))
            present = self._present(caller)
            known = _Known(min(now + (RECHECK if present else UNSEEN), expires - MARGIN), caller, expires, present)
        except Unauthenticated as refusal:
            _log.warning("refused a caller (%s): %s", refusal.reason, refusal)
            known = _Known(now + REFUSED_FOR, refusal, now)
        except (ApiError, TimeoutError) as error:
            earlier = self._known.get(digest)
            if earlier is None or not self._still_good(earlier, now):
                text = f"the API server cannot be asked about the caller's token: {str(error) or 'no answer'}"
                raise CannotAuthenticate(text) from error
            known = earlier
            known.until = now + REFUSED_FOR
        self._remember(digest, known)
        return known

    @contextlib.asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[None]:
        """For one question: a strike if the answer is no. Who has asked too much waits for what is still open."""
        until = asyncio.get_running_loop().time() + REVIEW_S
        while not self._strikes.take(peer, self._now()):
            left = until - asyncio.get_running_loop().time()
            if not self._open[peer] or left <= 0:
                self.refused["throttled"] += 1
                raise CannotAuthenticate(f"too many tokens from {peer} were nobody's: this one is not asked about yet")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), left)
        self._open[peer] += 1
        try:
            yield
        except Unauthenticated:
            raise
        except BaseException:
            self._strikes.give(peer, self._now())
            raise
        else:
            self._strikes.give(peer, self._now())
        finally:
            self._open[peer] -= 1
            self._open += Counter()  # without those that have none
            self._answered.set()
            self._answered = asyncio.Event()

    def _remember(self, digest: bytes, known: _Known) -> None:
        memory, other = self._known, self._strangers
        if isinstance(known.verdict, Unauthenticated):
            memory, other = other, memory
        other.pop(digest, None)
        memory[digest] = known
        memory.move_to_end(digest)
        while len(memory) > REMEMBERED:
            memory.popitem(last=False)

    def _still_good(self, known: _Known, now: datetime) -> bool:
        """Nothing speaks against it but that nobody can be asked."""
        if isinstance(known.verdict, Unauthenticated) or known.expires - MARGIN <= now:
            return False
        return self._present(known.verdict) or not known.seen

    def _plausible(self, token: str, now: datetime) -> tokens.Claims:
        """Turn away what the API server would refuse anyway, without asking it. Raises Unauthenticated."""
        if not token:
            _refuse("no_token", "no token was sent: expected the header 'authorization: Bearer TOKEN'")
        try:
            claims = tokens.peek(token)
        except ValueError as error:
            _refuse("bad_token", f"the token cannot be read: {error}")
        if claims.subject not in self._subjects:
            _refuse("other_account", f"{claims.subject[:300]!r} is not one of {', '.join(sorted(self._subjects))}")
        if not self._audiences & set(claims.audiences):
            found = ", ".join(claims.audiences)[:300]
            _refuse("other_audience", f"the token is for {found!r}, not for {', '.join(sorted(self._audiences))}")
        if not claims.pod or not claims.pod_uid:
            _refuse("not_pod_bound", "the token is bound to no pod: use a projected volume")
        if claims.expires + MARGIN.total_seconds() < now.timestamp():
            _refuse("expired", f"the token has expired, {now.timestamp() - claims.expires:.0f} s ago")
        pod, runs_on = self._pod(claims), self._expected(claims)
        if runs_on and claims.node and claims.node != runs_on:
            _refuse("node_mismatch", f"the token says that pod {pod} runs on {claims.node}, the API on {runs_on}")
        return claims

    def _pod(self, claims: tokens.Claims) -> str:
        """namespace/name."""
        return f"{claims.subject.split(':')[2]}/{claims.pod}"

    def _expected(self, claims: tokens.Claims) -> str:
        """The node that runs the pod a token names, by its uid; empty if the World has none, or not yet."""
        workload = self._world().workloads.get(self._pod(claims))
        return workload.node if workload is not None and workload.uid == claims.pod_uid else ""

    async def _review(self, token: str, expected: str) -> Json:
        """The status of a TokenReview. Raises ApiError or TimeoutError."""
        spec = {"token": token, "audiences": sorted(self._audiences)}
        async with asyncio.timeout(REVIEW_S), self._places[bool(expected)]:
            review = await self._api.create(api.TOKEN_REVIEW, {"spec": spec})
        status: Json = review.get("status") or {}
        return status

    def _judge(self, status: Json) -> Caller:
        """What the API server's answer comes to. Raises Unauthenticated."""
        if not status.get("authenticated"):
            _refuse("refused", f"the API server refused the token: {status.get('error') or 'no reason given'}")
        if not self._audiences & set(status.get("audiences") or ()):
            _refuse("other_audience", f"the API server found the token good for {status.get('audiences')!r} only")
        user = status.get("user") or {}
        if user.get("username") not in self._subjects:
            _refuse("other_account", f"{user.get('username')!r} is not one of {', '.join(sorted(self._subjects))}")
        _, _, namespace, account = user["username"].split(":")
        extra = {key.removeprefix(_EXTRA): values[0] for key, values in (user.get("extra") or {}).items() if values}
        pod, uid = extra.get("pod-name", ""), extra.get("pod-uid", "")
        if not pod or not uid:
            _refuse("not_pod_bound", "the API server names no pod that the token is bound to")
        workload = self._world().workloads.get(f"{namespace}/{pod}")
        seen = workload.node if workload is not None and workload.uid == uid else ""
        node = extra.get("node-name", "") or seen  # in the token since Kubernetes 1.32
        if not node:
            _refuse("no_node", f"neither the API server nor its watch has told where pod {namespace}/{pod} runs")
        if seen and seen != node:
            _refuse("node_mismatch", f"the token says that pod {namespace}/{pod} runs on {node}, the API on {seen}")
        return Caller(namespace=namespace, service_account=account, pod=pod, pod_uid=uid, node=node)


def _bearer(metadata: Metadata) -> str:
    """The token; empty if there is none."""
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _refuse(reason: str, text: str) -> NoReturn:
    raise Unauthenticated(reason, text)
