"""The trusted roots, published in a ConfigMap that agents mount, and put right when somebody changed it.

One replica's business: two that lag behind each other would overwrite each other for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ambient.control import api
from ambient.control.api import Api, ApiError, Patch
from ambient.control.authority import BUNDLE, ROOTS
from ambient.control.follow import follow
from ambient.xds.retry import pause

_log = logging.getLogger(__name__)


class Bundle:
    def __init__(self, kubernetes: Api, namespace: str, *, rng: random.Random | None = None) -> None:
        self._api = kubernetes
        self._namespace = namespace
        self._rng = rng or random.Random()
        self._wanted: str | None = None
        self._found: str | None = None
        self._read = False  # what is there
        self._news = asyncio.Event()

    async def publish(self, bundles: AsyncGenerator[bytes, None]) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks, aclosing(bundles):
            tasks.create_task(self._follow(), name="bundle: ConfigMap")
            tasks.create_task(self._write(), name="bundle: writer")
            async for pem in bundles:
                self._wanted = pem.decode()
                self._news.set()

    async def _follow(self) -> None:
        config_maps = follow(self._api, api.CONFIG_MAP, self._namespace, BUNDLE, rng=self._rng)
        async with aclosing(config_maps):
            async for found in config_maps:
                self._found = ((found or {}).get("data") or {}).get(ROOTS)
                self._read = True
                self._news.set()

    async def _write(self) -> None:
        failures = 0
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._read or self._wanted is None or self._wanted == self._found:
                continue
            metadata = {"namespace": self._namespace, "name": BUNDLE}
            try:
                obj = {"metadata": metadata, "data": {ROOTS: self._wanted}}
                written = await self._api.patch(api.CONFIG_MAP, obj, Patch.APPLY)
            except ApiError as error:
                failures += 1
                _log.warning("the trusted roots are not published: %s", error)
                await asyncio.sleep(pause(failures, self._rng, last=30.0))
                self._news.set()
            else:
                failures = 0
                self._found = written["data"][ROOTS]
