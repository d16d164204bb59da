"""An engine behind a lease: nothing is sent, and no answer read on, once the replica may be another's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.ollama_server import FakeOllama, Fault
from tipbench.cluster import LeaseLost
from tipbench.engines.base import Options
from tipbench.engines.ollama import Limits, OllamaEngine

pytestmark = pytest.mark.integration
MESSAGES = [{"role": "user", "content": "A tip, please."}]
QUICK = Limits(connect=1, first_chunk=0.6, between_chunks=0.3, unreachable=5, queue_full=5, unload=1)


class Lease:
    """A fence that says no once it was asked so many times."""

    def __init__(self, requests: int = 1000, chunks: int = 1000) -> None:
        self.requests, self.chunks = requests, chunks

    def before_request(self) -> None:
        self.requests -= 1
        if self.requests < 0:
            raise LeaseLost("the lease went to another")

    def in_flight(self) -> None:
        self.chunks -= 1
        if self.chunks < 0:
            raise LeaseLost("the lease went to another")


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama().start()
    yield server
    server.stop()


def generate(fake: FakeOllama, lease: Lease) -> None:
    engine = OllamaEngine(fake.url, limits=QUICK, fence=lease)
    try:
        engine.generate("small:1b", MESSAGES, Options(), 1)
    finally:
        engine.close()


def test_no_request_is_sent_once_the_lease_is_lost(fake: FakeOllama) -> None:
    with pytest.raises(LeaseLost):
        generate(fake, Lease(requests=0))
    assert fake.requests == []


def test_no_retry_is_sent_either(fake: FakeOllama) -> None:
    """The first answer failed, the lease went meanwhile: the second try would meet another's model."""
    fake.always = Fault("http", 500, "llama runner process no longer running")
    with pytest.raises(LeaseLost):
        generate(fake, Lease(requests=2))
    assert len(fake.requests) == 2


def test_an_answer_on_its_way_is_broken_off(fake: FakeOllama) -> None:
    with pytest.raises(LeaseLost):
        generate(fake, Lease(chunks=2))
    assert len(fake.requests) == 1


@pytest.mark.parametrize("call", ["info", "models", "resident"])
def test_every_call_asks_first(fake: FakeOllama, call: str) -> None:
    engine = OllamaEngine(fake.url, limits=QUICK, fence=Lease(requests=0))
    with pytest.raises(LeaseLost):
        getattr(engine, call)()
    engine.close()


def test_whoever_holds_the_lease_notices_nothing(fake: FakeOllama) -> None:
    generate(fake, Lease())
    assert len(fake.requests) == 1
