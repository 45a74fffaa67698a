"""What becomes of the agent's DaemonSet, seen while it happens: who asks afterwards may have no credentials any more.

Watches this one object, in a thread of its own because it mostly waits. What it could not see stays unknown: it never
concludes from a refusal. The account may be deleted right before the DaemonSet, a watch that is open goes on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from ambient.agent.cni import removal
from ambient.agent.cni.apiserver import ApiServer

AGAIN_S = 5.0  # between attempts, by half of it more or less: all agents of a cluster may have lost the same API server
WATCHED_S = 60.0
log = logging.getLogger(__name__)


class Fate:
    def __init__(self, daemonset: str, connect: Callable[[], ApiServer] = ApiServer) -> None:
        """daemonset: NAMESPACE/NAME."""
        self._namespace, _, self._daemonset = daemonset.partition("/")
        self._connect = connect
        self.gone = ""  # a sentence, while the last that was seen of it is that it went
        self._closing = threading.Event()
        self._server: ApiServer | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="fate of the DaemonSet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._server is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._server.interrupt()

    def _run(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                with contextlib.closing(self._connect()) as self._server:
                    self._follow(self._server)
                self._problem = ""
            except OSError as error:
                self._tell(str(error))
            if time.monotonic() - began < WATCHED_S:  # else a watch had its time: no moment is to be missed
                self._closing.wait(AGAIN_S * random.uniform(0.5, 1.5))

    def _follow(self, server: ApiServer) -> None:
        """What is there, then what happens to it. Raises OSError."""
        collection = removal.collection(self._namespace)
        status, body = server.get(f"{collection}/{self._daemonset}")
        why = removal.going(status, body, self._daemonset)
        if not why and status != HTTPStatus.OK:
            raise OSError(f"DaemonSet {self._namespace}/{self._daemonset}: the API server answers with {status}")
        self._saw(why)
        if status != HTTPStatus.OK:
            return
        for kind, found in server.watch(collection, self._daemonset, body["metadata"]["resourceVersion"]):
            if kind == "DELETED":
                self._saw("was deleted")
            elif kind in ("ADDED", "MODIFIED"):
                self._saw("is being deleted" if removal.is_leaving(found) else "")
            elif kind == "ERROR":  # the version is too old: look again
                return

    def _saw(self, why: str) -> None:
        self.gone = f"DaemonSet {self._namespace}/{self._daemonset} {why}, as this agent saw" if why else ""

    def _tell(self, problem: str) -> None:
        """Once each: it is tried again for as long as the agent lives."""
        if problem != self._problem and not self._closing.is_set():
            log.warning("what becomes of the DaemonSet is not seen: %s; asked again", problem)
        self._problem = problem
