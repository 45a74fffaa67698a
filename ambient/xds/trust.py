"""Whom an agent takes for the control plane, and which roots it holds workloads to.

Until the control plane has told its roots, a file says (the mounted ConfigMap); from then on the control plane does,
and the file only helps to find it again: neither a file that lags behind a rotation nor a long outage locks an agent
out. So long as the file has not followed, a root that was dropped is still believed of the control plane: of workloads,
which are told of it at once, it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import watchfiles

from ambient.identity import roots

LOOK_AGAIN_MS = 10_000  # for a file that changed without the kernel telling us

_log = logging.getLogger(__name__)


class NoRoots(Exception):
    """There is nothing to know the control plane by; the text says what to look at."""


class Trust:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.told = b""  # the control plane's newest word; empty: none yet
        self._was_told = asyncio.Event()
        self._news = asyncio.Event()  # of this word; the next one has an event of its own

    def tell(self, roots_pem: bytes) -> None:
        """The control plane has said what is trusted. What is no bundle of roots changes nothing."""
        try:
            roots.checked_bundle(roots_pem)
        except ValueError as error:
            _log.error("the control plane told roots that are none, the former ones hold: %s", error)
            return
        if roots_pem != self.told:
            self.told = roots_pem
            self._was_told.set()
            self._news.set()
            self._news = asyncio.Event()

    def for_control_plane(self) -> bytes:
        """By what its certificate may be signed. Raises NoRoots."""
        if not self.told:
            return self._from_file()
        with contextlib.suppress(NoRoots):
            filed = self._from_file()
            return filed if filed == self.told else filed + self.told
        return self.told

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """By what workloads' certificates may be signed: now, and again after every change. Raises NoRoots."""
        known = b""
        looks = watchfiles.awatch(
            self.file.parent,
            watch_filter=None,
            rust_timeout=LOOK_AGAIN_MS,
            yield_on_timeout=True,
            recursive=False,
            stop_event=self._was_told,
        )
        async with contextlib.aclosing(looks):
            while not self._was_told.is_set():
                if (pem := self._from_file()) != known:
                    known = pem
                    yield pem
                await anext(looks, None)
        while True:
            news = self._news
            if self.told != known:
                known = self.told
                yield known
            await news.wait()

    def _from_file(self) -> bytes:
        """Read each time: it is small, and the kubelet replaces it as it likes."""
        try:
            return roots.checked_bundle(self.file.read_bytes())
        except (OSError, ValueError) as error:
            raise NoRoots(
                f"no roots by which to know the control plane: {self.file}: {error}; it is the ConfigMap ambient-root, "
                "which the control plane writes once it runs"
            ) from error
