"""The store as its users see it, and how it is opened."""

from __future__ import annotations

import threading

from tipbench.net.address import Address, read_store
from tipbench.store.archive import Archive
from tipbench.store.backend import Backend
from tipbench.store.boards import Boards
from tipbench.store.experiments import Experiments
from tipbench.store.exports import Exports
from tipbench.store.local import LocalBackend
from tipbench.store.part import Recent
from tipbench.store.races import Races
from tipbench.store.rest import READ_S, RestBackend


class Store(Experiments, Archive, Exports, Boards, Races):
    """Every read and write that tipbench makes, in its own words. Methods may be called from several threads."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._own = {}
        self._own_lock = threading.Lock()
        self._read = Recent(dict)
        self._sealed = Recent(dict)
        self._scored = Recent(list)


def open_store(url: str, *, retry_s: float | None = None, read_s: float = READ_S) -> Store:
    """The store at `url`: an MLflow server (http, https) or a local folder. Connects on first use.

    `retry_s` and `read_s` are limits for a server, for callers that cannot wait for minutes. Raises InputError for what is
    neither (see `read_store`).
    """
    place = read_store(url)
    if isinstance(place, Address):
        return Store(RestBackend(place, retry_s=retry_s, read_s=read_s))
    return Store(LocalBackend(place))
