"""Judges: a person in a pseudo-terminal, and LLMs that answer nonsense, go away or do not fit."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import Tipbench, clean_env, command_line
from tests.fakes.ollama_server import FakeOllama
from tipbench.catalog import load_judge_prompt
from tipbench.judging.validate import read_exchange, write_exchange

pytestmark = pytest.mark.integration


def items(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["items"]
    return found


class Person:
    """Somebody at an 80x24 terminal."""

    def __init__(self, file: Path, home: Path, *more: str) -> None:
        program, *arguments = command_line("judge", "score", file, "--as", "ann", *more)
        env = {k: v for k, v in clean_env(home).items() if k != "COLUMNS"} | {"TERM": "xterm-256color"}
        self.child = pexpect.spawn(program, arguments, env=env, dimensions=(24, 80), timeout=20, encoding="utf-8")  # type: ignore[arg-type]

    def sees(self, words: str) -> None:
        self.child.expect(words)

    def types(self, keys: str) -> None:
        self.child.send(keys)

    def leaves(self) -> int:
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus or 0)


def test_a_person_scores_undoes_skips_and_comes_back(file: Path, tmp_path: Path) -> None:
    ann = Person(file, tmp_path)
    ann.sees("tip 1 of 3")
    ann.sees("Relevance")
    ann.types("4")
    ann.sees("Actionability")
    ann.types("2")
    ann.sees("Tone")
    ann.types("u")
    ann.sees("Actionability")
    ann.types("r")
    ann.sees("Why")
    ann.types("no step in it\r")
    ann.sees("Actionability")
    ann.types("3")
    ann.sees("Tone")
    ann.types("5")
    ann.sees("tip 2 of 3")
    ann.types("9")
    ann.sees("1 to 5")
    ann.types("s")
    ann.sees("tip 3 of 3")
    ann.types("q")
    assert ann.leaves() == 0
    first, second, third = items(file)
    assert first["scores"] == {"relevance": 4, "actionability": 3, "tone": 5}
    assert first["rationale"] == "no step in it" and first["scored_at"]
    assert set(second["scores"].values()) == set(third["scores"].values()) == {None}

    ann = Person(file, tmp_path)
    ann.sees("tip 2 of 3")  # where it stands in the file, as before
    ann.sees("1 scored, 2 open")
    ann.types("111")
    ann.sees("tip 3 of 3")
    ann.types("u")  # back into the tip before
    ann.sees("tip 2 of 3")
    ann.sees("Tone")
    ann.types("2")
    ann.sees("tip 3 of 3")
    ann.types("555")
    ann.sees("3 of 3 tips are scored")
    ann.types("u")  # the last key can be taken back as well
    ann.sees("Tone")
    ann.types("4")
    ann.sees("3 of 3 tips are scored")
    ann.types("\r")
    ann.sees("2 tips scored by ann, 0 left")
    assert ann.leaves() == 0
    assert [list(i["scores"].values()) for i in items(file)] == [[4, 3, 5], [1, 1, 2], [5, 5, 4]]
    assert json.loads(file.read_text())["judge"] == {"name": "ann", "kind": "human", "details": {}}


@pytest.mark.parametrize("leave", ["\x03", "q", "\x04", "s"], ids=["Ctrl-C", "q", "Ctrl-D", "skip"])
def test_a_half_scored_tip_is_kept_with_its_rationale(file: Path, tmp_path: Path, leave: str) -> None:
    ann = Person(file, tmp_path)
    ann.sees("Relevance")
    ann.types("4")
    ann.sees("Actionability")
    ann.types("r")
    ann.sees("Why")
    ann.types("because\r")
    ann.sees("why: because")
    ann.types(leave)
    if leave == "s":
        ann.sees("tip 2 of 3")
        ann.types("\x03")
    assert ann.leaves() == (130 if leave in ("\x03", "s") else 0)
    first = items(file)[0]
    assert first["scores"] == {"relevance": 4, "actionability": None, "tone": None} and first["rationale"] == "because"
    ann = Person(file, tmp_path)
    ann.sees("0 scored, 3 open")
    ann.sees("why: because")
    ann.sees("Actionability")
    ann.types("35")
    ann.sees("1 scored, 2 open")
    ann.types("q")
    assert ann.leaves() == 0
    assert list(items(file)[0]["scores"].values()) == [4, 3, 5]


def test_a_line_that_hangs_up_loses_nothing(file: Path, tmp_path: Path) -> None:
    ann = Person(file, tmp_path)
    ann.sees("Relevance")
    ann.types("2")
    ann.sees("Actionability")
    ann.child.kill(signal.SIGHUP)
    assert ann.leaves() == 130
    assert items(file)[0]["scores"]["relevance"] == 2


class Screen:
    """Somebody in a real terminal: tmux draws it, and says what stands on it."""

    def __init__(self, file: Path, home: Path, columns: int, lines: int) -> None:
        if not shutil.which("tmux"):
            pytest.skip("tmux is not on PATH")
        self._tmux = ["tmux", "-L", f"tipbench-{os.getpid()}-{home.name}"]
        env = [f"{k}={v}" for k, v in clean_env(home).items() if k in ("PATH", "HOME", "LANG")] + ["LC_ALL=C.UTF-8"]
        command = shlex.join(
            ["env", "-u", "COLUMNS", "-u", "LINES", *env, *command_line("judge", "score", file, "--as", "ann")]
        )
        size = ["-x", str(columns), "-y", str(lines)]
        self._call(
            "-f", "/dev/null", "new-session", "-d", "-s", "ann", *size, f"{command}; echo left with $?; sleep 60"
        )

    def _call(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout

    def types(self, *keys: str) -> None:
        self._call("send-keys", "-t", "ann", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._call("resize-window", "-t", "ann", "-x", str(columns), "-y", str(lines))

    def shows(self, *words: str, instead_of: list[str] | None = None) -> list[str]:
        """The screen's lines, once all the words stand on it, something else than before, and it is drawn to its end."""
        lines: list[str] = []
        for _ in range(300):
            before, lines = lines, self._call("capture-pane", "-p", "-t", "ann").rstrip("\n").split("\n")
            if before == lines != instead_of and all(word in "\n".join(lines) for word in words):
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{words} are not on the screen:\n" + "\n".join(lines))

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)


@pytest.fixture
def long_file(file: Path) -> Path:
    """Tips and scenarios that no small screen holds."""
    read = read_exchange(file)
    long = [" ".join(f"{word}{n}" for n in range(300)) for word in ("tip", "scene")]
    changed = [i.model_copy(update={"tip": long[0], "scenario": "SITUATION. " + long[1][:900]}) for i in read.items]
    write_exchange(read.model_copy(update={"items": tuple(changed)}), file)
    return file


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (120, 50), (40, 24)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_what_is_asked_stands_on_every_screen_and_every_word_can_be_read(
    long_file: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    screen = Screen(long_file, tmp_path, *size)
    try:
        lines = screen.shows("tip 1 of 3", "Relevance:", "SITUATION")
        assert len(lines) <= size[1] and all(f" {score} " in "\n".join(lines) for score in range(1, 6))
        # The file has 900 characters of the situation.
        unread = {f"tip{n}" for n in range(300)} | {f"scene{n}" for n in range(111)}
        for _ in range(80):
            unread -= set(re.findall(r"\b(?:tip|scene)\d+\b", "\n".join(lines)))
            if not unread:
                break
            screen.types("Space")
            lines = screen.shows("tip 1 of 3", "Relevance:", instead_of=lines)
        assert not unread
    finally:
        screen.close()


def test_a_window_of_another_size_is_drawn_anew(long_file: Path, tmp_path: Path) -> None:
    screen = Screen(long_file, tmp_path, 100, 40)
    try:
        screen.shows("tip 1 of 3", "Relevance:")
        for columns, lines in ((80, 24), (50, 18), (120, 30), (80, 24)):
            screen.resize(columns, lines)
            shown = screen.shows("tip 1 of 3", "Relevance:", "SITUATION", "more lines below")
            assert len(shown) <= lines and shown[0].startswith("tip 1 of 3")
            assert sum("Relevance:" in line for line in shown) == 1
        screen.types("3", "3", "3")
        screen.shows("tip 2 of 3", "1 scored, 2 open")
        screen.types("C-c")
        screen.shows("left with 130")
    finally:
        screen.close()


def test_everything_a_person_needs_fits_80_by_24(file: Path, tmp_path: Path) -> None:
    ann = Person(file, tmp_path)
    ann.sees("save and quit")
    screen = ann.child.before + ann.child.after
    shown = screen.rsplit("\x1b[2J", 1)[-1]
    assert shown.count("\r\n") < 24
    for words in ("It is late", "Put the phone away", "Relevance"):
        assert words in shown
    ann.types("\x03")
    assert ann.leaves() == 130


def test_without_a_terminal_it_says_what_to_use_instead(file: Path, tipbench: Tipbench) -> None:
    done = tipbench("judge", "score", file)
    assert done.returncode == 2 and "--with baseline" in done.stderr


def test_a_file_that_another_judge_began_is_refused(file: Path, tipbench: Tipbench) -> None:
    assert tipbench("judge", "score", file, "--with", "baseline").returncode == 0
    done = tipbench("judge", "score", file, "--with", "ollama:small:1b", "--ollama-url", "http://127.0.0.1:9")
    assert done.returncode == 2 and "was begun by judge baseline" in done.stderr


@pytest.mark.parametrize("spec", ["oracle", "ollama:", "gpt-4"])
def test_an_unknown_judge_is_named_with_those_there_are(file: Path, tipbench: Tipbench, spec: str) -> None:
    done = tipbench("judge", "score", file, "--with", spec)
    assert done.returncode == 2 and "ollama:MODEL" in done.stderr


def test_a_judge_that_answers_nonsense_leaves_tips_open_and_says_so(file: Path, tipbench: Tipbench) -> None:
    fake = FakeOllama().start()
    done = tipbench("judge", "score", file, "--with", "ollama:small:1b", "--ollama-url", fake.url)
    fake.stop()
    assert done.returncode == 4
    assert "3 tips could not be scored: BrokenAnswer" in done.stdout
    assert len(fake.requests) == 9  # three attempts a tip
    assert all(s is None for i in items(file) for s in i["scores"].values())


def test_a_judge_that_goes_away_keeps_what_was_scored(file: Path) -> None:
    from tipbench.engines.ollama import Limits, OllamaEngine
    from tipbench.errors import UnreachableError
    from tipbench.judging.fill import fill
    from tipbench.judging.llm import EngineChat, LLMJudge
    from tipbench.judging.validate import read_exchange

    fake = FakeOllama(delay=0.3)  # the third tip is in flight when the server goes

    def text(model: str, question: str, seed: int) -> str:
        return json.dumps({"rationale": "r", "relevance": 4, "actionability": 4, "tone": 4})

    fake.text = text  # type: ignore[method-assign]
    fake.start()
    engine = OllamaEngine(fake.url, limits=Limits(unreachable=0.5))
    judge = LLMJudge("ollama:small:1b", EngineChat(engine, "small:1b", details={}), load_judge_prompt())

    def stop_after_two(done: int, total: int) -> None:
        if done == 2:
            fake.stop()

    with pytest.raises(UnreachableError):
        fill(read_exchange(file), judge, file, stop_after_two)
    assert [all(s == 4 for s in i["scores"].values()) for i in items(file)] == [True, True, False]


def test_a_judge_on_ollama_gets_its_threads_and_may_be_larger_than_a_candidate(file: Path, tipbench: Tipbench) -> None:
    fake = FakeOllama()
    fake.text = lambda model, question, seed: '{"relevance": 4, "actionability": 4, "tone": 4}'  # type: ignore[method-assign]
    fake.add("large:70b", 70_000_000_000)
    fake.start()
    done = tipbench("judge", "score", file, "--with", "ollama:large:70b", "--ollama-url", fake.url, "--num-thread", 3,
                    "--rationale", "none", "--parallel", 2)  # fmt: skip
    fake.stop()
    assert done.returncode == 0, done.stderr
    assert {r["options"]["num_thread"] for r in fake.requests} == {3}
    assert all(r["logprobs"] is True and "rationale" not in r["format"]["properties"] for r in fake.requests)
    details = json.loads(file.read_text())["judge"]["details"]
    assert details["rationale"] == "none" and details["digest"] == fake.models["large:70b"]["digest"]


def test_a_judge_on_ollama_must_fit_the_memory_limit(file: Path, tipbench: Tipbench) -> None:
    fake = FakeOllama()
    fake.add("large:7b", 7_000_000_000, size=4_000_000_000)
    fake.start()
    done = tipbench(
        "judge", "score", file, "--with", "ollama:large:7b", "--ollama-url", fake.url, "--memory-limit", "2Gi"
    )
    fake.stop()
    assert done.returncode == 2 and "over the memory limit of 2.0 GiB" in done.stderr and not fake.requests
