"""Which of the namespaces can be watched now. Must not know who watches them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from finetune_operator.errors import ClusterRefused, OperatorError

logger = logging.getLogger(__name__)

MISSING_SECONDS = 5.0

TryToList = Callable[[str], Awaitable[object]]


async def listable(try_to_list: TryToList, namespaces: Sequence[str]) -> list[str]:
    """The namespaces whose runs may be listed; waits until there is one, and the resource is there.

    A watch would end for good, or watch nothing for ever, where that is not so. A namespace whose rights went with it
    when it was deleted must not keep the others waiting: once it can be listed again, the resync finds its runs, and
    the watch is begun anew because no event told of them.
    """
    while True:
        found, unanswered = [], False
        for namespace in namespaces:
            try:
                await try_to_list(namespace)
                found.append(namespace)
            except ClusterRefused as error:
                logger.warning("not watched: namespace=%s: %s", namespace, error)
            except OperatorError as error:
                unanswered = True
                logger.warning("runs cannot be listed, is the CRD there? namespace=%s: %s", namespace, error)
        if found and not unanswered:
            return found
        await asyncio.sleep(MISSING_SECONDS)
