"""What a stage works with, opened from a configuration: the store, the engine, and one Ollama of our own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tipbench.config import Config
from tipbench.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tipbench.engines.base import Fence, Held
    from tipbench.notice import Notice
    from tipbench.store import Store


def store_of(config: Config) -> Any:
    """The store, to be used in a `with`."""
    from tipbench.store import open_store

    return contextlib.closing(open_store(config.store_url))


def engine_of(config: Config, fence: Fence | None = None) -> Any:
    """The engine, to be used in a `with`; `fence` says whether an Ollama that others use too is ours."""
    from tipbench.engines import open_engine

    return contextlib.closing(open_engine(config, fence))


@contextlib.contextmanager
def claimed(config: Config) -> Iterator[tuple[Config, Held | None]]:
    """The configuration with one Ollama of our own; in a cluster a Lease says whose it is."""
    namespace = os.environ.get("TIPBENCH_LEASE_NAMESPACE")
    if config.engine != "ollama":
        yield config, None
        return
    if not namespace:
        if len(config.ollama_urls) > 1:
            raise InputError(
                f"ollama_url names {len(config.ollama_urls)} servers; only in a cluster can they be shared out "
                "(TIPBENCH_LEASE_NAMESPACE). Name one."
            )
        yield config, None
        return
    from tipbench.cluster import Cluster, pod_name

    with Cluster(namespace).claim(config.ollama_urls, pod_name(), lambda words: click.echo(words, err=True)) as replica:
        yield dataclasses.replace(config, ollama_url=replica.url), replica


def tell_once(config: Config, store: Store, what: str, notice: Callable[[], Notice]) -> None:
    """Send the notice to `notify_url`, unless the experiment notes that `what` (an export's id, a board's) was told before.

    Never stops the command: whoever repeats it tells it again.
    """
    if not config.notify_url:
        return
    from tipbench.errors import TipbenchError
    from tipbench.notice import send

    one = notice()
    key = f"tipbench.told.{one.event}"
    try:
        experiment_id = store.require_experiment(config.experiment)
        if store.notes(experiment_id, key).get("") != what and send(config.notify_url, one):
            store.note(experiment_id, key, what)
    except TipbenchError as error:
        click.echo(f"warning: {error}", err=True)
