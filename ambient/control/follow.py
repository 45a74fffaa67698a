"""One object of the Kubernetes API, followed: what it is now, and what it is after each change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator

from ambient.control import api
from ambient.control.api import Api, ApiError, Json, Kind
from ambient.xds.retry import pause

_log = logging.getLogger(__name__)


async def follow(
    kubernetes: Api, kind: Kind, namespace: str, name: str, *, rng: random.Random | None = None
) -> AsyncGenerator[Json | None, None]:
    """The object, or None where there is none. Trouble is waited out, and the object read anew after it; never ends."""
    rng = rng or random.Random()
    failures = 0
    while True:
        try:
            found = await api.find(kubernetes, kind, namespace, name)
            yield found
            version = found["metadata"]["resourceVersion"] if found else ""
            async with contextlib.aclosing(kubernetes.watch(kind, namespace, name, version)) as events:
                async for what, obj in events:
                    failures = 0
                    yield None if what == "DELETED" else obj
        except ApiError as error:
            failures += 1
            if failures > 1 or error.status != api.GONE:
                _log.warning("%s %s/%s is not followed for now: %s", kind.kind, namespace, name, error)
        await asyncio.sleep(pause(failures, rng, first=0.2, last=10.0))
