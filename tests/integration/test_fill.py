"""Filling a file with several questions in flight: order, speed, and what a kill costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.openai_server import FakeOpenAI
from tests.unit.test_validate import exchange
from tipbench.errors import InputError, UnreachableError
from tipbench.judging.exchange import ExchangeRubric, JudgeIdentity
from tipbench.judging.fill import Judgment, JudgmentError, fill
from tipbench.judging.validate import read_exchange, write_exchange
from tipbench.stages import score
from tipbench.stages.score import JudgeSettings

pytestmark = pytest.mark.integration

SCORES = {"relevance": 4, "actionability": 3, "tone": 5}


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI().start()
    yield server
    server.stop()


def written(tmp_path: Path, tips: int, scenarios: int) -> Path:
    """A file with the tips of several scenarios shuffled together, as an export writes it."""
    body = exchange(tips)
    items = tuple(
        i.model_copy(update={"tip": f"tip {n}", "scenario": f"scenario {n % scenarios}"})
        for n, i in enumerate(body.items)
    )
    path = tmp_path / "judge.json"
    write_exchange(body.model_copy(update={"items": items}), path)
    return path


class Recorder:
    """A judge that notes whom it was asked about, and how many at once."""

    def __init__(self, pause: float = 0.0, version: str = "a") -> None:
        self.identity = JudgeIdentity(name="rec", kind="llm", details={"judge_prompt": version})
        self.asked: list[tuple[str, str]] = []
        self.pause = pause
        self.lock = threading.Lock()
        self.now = self.most = 0

    def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
        with self.lock:
            self.asked.append((scenario, tip))
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.pause)
        with self.lock:
            self.now -= 1
        return Judgment(SCORES)


def test_the_tips_of_a_scenario_follow_each_other_and_the_file_keeps_its_order(tmp_path: Path) -> None:
    path = written(tmp_path, 12, 3)
    before = read_exchange(path)
    judge = Recorder()
    fill(before, judge, path)
    scenarios = [scenario for scenario, _ in judge.asked]
    assert scenarios == sorted(scenarios) and len(scenarios) == 12
    after = read_exchange(path)
    assert [i.id for i in after.items] == [i.id for i in before.items] and all(i.complete for i in after.items)


def test_as_many_are_asked_at_once_as_was_said_and_no_more(tmp_path: Path) -> None:
    path = written(tmp_path, 24, 2)
    judge = Recorder(pause=0.05)
    began = time.monotonic()
    result = fill(read_exchange(path), judge, path, parallel=8)
    assert judge.most == 8 and result.scored == 24 and time.monotonic() - began < 24 * 0.05 / 2


def test_a_judge_that_fails_on_one_tip_goes_on_with_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, 9, 2)

    class Picky(Recorder):
        def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
            if tip == "tip 4":
                raise JudgmentError("Picky", "not this one")
            return super().score(rubric, scenario, tip)

    result = fill(read_exchange(path), Picky(), path, parallel=3)
    assert (result.scored, result.left, dict(result.failures), dict(result.why)) == (
        8, 1, {"Picky": 1}, {"Picky": "not this one"},
    )  # fmt: skip
    assert [i.tip for i in read_exchange(path).items if not i.complete] == ["tip 4"]


def test_a_service_that_goes_away_ends_it_with_everything_that_was_answered_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 40, 2)

    class Mortal(Recorder):
        def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
            if len(self.asked) >= 20:
                raise UnreachableError("gone")
            return super().score(rubric, scenario, tip)

    judge = Mortal(pause=0.01)
    with pytest.raises(UnreachableError):
        fill(read_exchange(path), judge, path, parallel=4)
    done = sum(i.complete for i in read_exchange(path).items)
    assert 20 - 4 <= done <= 24
    assert not list(tmp_path.glob(".judge*"))


def test_another_version_of_a_judge_does_not_go_on_in_the_same_file(tmp_path: Path) -> None:
    path = written(tmp_path, 4, 2)

    class Stops(Recorder):
        def score(self, rubric: ExchangeRubric, scenario: str, tip: str) -> Judgment:
            if self.asked:
                raise UnreachableError("gone")
            return super().score(rubric, scenario, tip)

    with pytest.raises(UnreachableError):
        fill(read_exchange(path), Stops(version="a"), path)
    with pytest.raises(InputError, match="in another version"):
        fill(read_exchange(path), Recorder(version="b"), path)
    assert fill(read_exchange(path), Recorder(version="a"), path).scored == 3


def test_tips_take_no_longer_than_eight_at_once_must(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.delay = 0.25
    path = written(tmp_path, 80, 8)
    began = time.monotonic()
    result = score.run(path, "openai:m", JudgeSettings(ollama_url="", base_url=fake.url, parallel=8))
    assert result.scored == 80 and fake.most_at_once == 8
    assert time.monotonic() - began <= 1.5 * 80 / 8 * 0.25


PROGRAM = """
import sys
from pathlib import Path
from tipbench.stages import score
score.run(Path(sys.argv[1]), "openai:m", score.JudgeSettings(ollama_url="", base_url=sys.argv[2], parallel=8))
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_loses_only_what_was_in_flight(tmp_path: Path, fake: FakeOpenAI, kill: signal.Signals) -> None:
    fake.delay = 0.1
    path = written(tmp_path, 80, 4)
    command = [sys.executable, "-c", PROGRAM, str(path), fake.url]
    for _ in range(2):
        seen = len(fake.requests)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OPENAI_API_KEY": ""})
        while len(fake.requests) < seen + 25:
            time.sleep(0.01)
        process.send_signal(kill)
        process.wait(timeout=20)
        read_exchange(path)  # never half a file
    subprocess.run(command, check=True, timeout=60)
    assert all(i.complete for i in read_exchange(path).items)
    assert len(fake.asked) == 80
    twice = sum(fake.asked.values()) - 80
    assert twice <= 8 * 2
    assert not list(tmp_path.glob(".judge*"))
