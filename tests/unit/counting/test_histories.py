"""A history of any length and order gives the same answer as a plain model of what must count.

Collect, collect less or more tips, kill, edit, revert, pull another digest, collect twice at once, judge by anybody, judge again, change the
rubric: afterwards what the product says must be what the model says, which knows only contents and who scored what.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.memory_backend import MemoryBackend, memory_store
from tipbench.catalog import Rubric, load_rubric
from tipbench.config import Config
from tipbench.counting import marks
from tipbench.counting.judged import MANUAL, Asked
from tipbench.engines.base import EngineInfo, Generation, ModelFacts, Options, Resident
from tipbench.judging.exchange import JudgeIdentity
from tipbench.judging.validate import scored, with_items
from tipbench.stages import apply, collect, compare, export, status
from tipbench.store.records import Holdings, judge_version

pytestmark = pytest.mark.unit
EXPERIMENT = "tip-bench-history"
MODELS, SCENARIOS = ("one:1b", "two:1b"), ("s0", "s1")
KINDS = {"ann": "human", "ollama:x": "llm", "baseline": "baseline"}


class Writer:
    """An engine that writes at once, and is killed after so many answers."""

    def __init__(self, digests: dict[str, str], lives: int | None) -> None:
        self.digests, self.lives = digests, lives

    def info(self) -> EngineInfo:
        return EngineInfo("test", "1")

    def models(self) -> list[ModelFacts]:
        return [self.describe(model) for model in self.digests]

    def describe(self, model: str) -> ModelFacts:
        return ModelFacts(model, self.digests[model], 1_000_000_000, "Q4", 1_000_000)

    def generate(self, model: str, messages: Any, options: Options, seed: int, schema: Any = None) -> Generation:
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise KeyboardInterrupt
        text = f"{self.digests[model]} {messages[-1]['content']} {options.temperature} {seed}"
        return Generation(text, "stop", 0.1, 0.1, 0.0, 5, 0.1, 5, 0.1, 0.1)

    def resident(self) -> list[Resident]:
        return []

    def unload(self, model: str) -> None:
        pass

    def close(self) -> None:
        pass


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "prompts").mkdir()
        self.backend = MemoryBackend()
        self.store = memory_store(self.backend)
        self.rubrics = (load_rubric(), _other_rubric())
        # The model: what each name means, now and by the newest plan; who scored what.
        self.contents: dict[str, Any] = {"v1": 0, "s0": 0, "s1": 0, "one:1b": 0, "two:1b": 0}
        self.planned: dict[str, Any] = {}
        self.scores: dict[tuple[Any, int, str, str, str], int] = {}
        self.digest_of_judge = "d0"
        self.last_version: dict[tuple[str, str], str] = {}
        self.given = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # -- what happens ------------------------------------------------------------------------------

    def _collect(self, models: list[str], n_tips: int, hot: bool, lives: int | None, spool: str, blind: bool) -> None:
        (self.folder / "prompts" / "v1.yaml").write_text(
            yaml.safe_dump({"name": "v1", "user": f"Version {self.contents['v1']}: {{{{ situation }}}}"})
        )
        scenarios = [{"id": s, "title": s, "situation": f"{s} version {self.contents[s]}"} for s in SCENARIOS]
        (self.folder / "scenarios.yaml").write_text(yaml.safe_dump({"scenarios": scenarios}))
        store = memory_store(self.backend)
        if blind:  # somebody who looked before the others' cells were there
            store.holdings = lambda experiment_id: Holdings(experiment_id, (), ())  # type: ignore[method-assign]
        config = Config(
            models=",".join(models),
            prompts="v1",
            prompts_dir=str(self.folder / "prompts"),
            scenarios=str(self.folder / "scenarios.yaml"),
            n_tips=n_tips,
            temperature=1.0 if hot else 0.7,
            experiment=EXPERIMENT,
            spool=str(self.folder / spool),
        )
        digests = {model: f"{model} {self.contents[model]}" for model in MODELS}
        self.planned |= {name: self.contents[name] for name in (*models, "v1", *SCENARIOS)}
        try:
            collect.run(config, Writer(digests, lives), store)
        except KeyboardInterrupt:
            assert lives is not None

    @rule(
        models=st.sampled_from([["one:1b"], ["two:1b"], ["one:1b", "two:1b"]]),
        n_tips=st.integers(1, 3),
        hot=st.booleans(),
    )
    def collects(self, models: list[str], n_tips: int, hot: bool) -> None:
        self._collect(models, n_tips, hot, None, "spool", False)

    @rule(n_tips=st.integers(1, 3), lives=st.integers(0, 8))
    def is_killed(self, n_tips: int, lives: int) -> None:
        self._collect(["one:1b", "two:1b"], n_tips, False, lives, "spool", False)

    @precondition(lambda self: self.planned)
    @rule(n_tips=st.integers(1, 3))
    def collects_what_somebody_else_is_collecting(self, n_tips: int) -> None:
        self._collect(["one:1b"], n_tips, False, None, f"spool-{len(self.backend.runs)}", True)

    @rule(name=st.sampled_from(["v1", "s0", "one:1b"]), version=st.integers(0, 2))
    def edits_or_reverts(self, name: str, version: int) -> None:
        self.contents[name] = version

    @rule(digest=st.sampled_from(["d0", "d1"]))
    def pulls_the_judge_anew(self, digest: str) -> None:
        self.digest_of_judge = digest

    @precondition(lambda self: self.planned)
    @rule(
        judge=st.sampled_from(sorted(KINDS)),
        rubric=st.sampled_from([0, 1]),
        most=st.integers(1, 20),
        one_by_one=st.booleans(),
    )
    def judges(self, judge: str, rubric: int, most: int, one_by_one: bool) -> None:
        rules = self.rubrics[rubric]
        details = {"digest": self.digest_of_judge} if judge == "ollama:x" else {}
        identity = JudgeIdentity(name=judge, kind=KINDS[judge], details=details)  # type: ignore[arg-type]
        version = self.digest_of_judge if details else ""
        store = memory_store(self.backend)
        asked = Asked(judge, judge_version("llm", details) if details else None)
        exported = export.run(EXPERIMENT, store, rules, judge=judge, asked=asked, repeats=0)
        if not exported.exchange.items and (judge, rules.hash) in self.last_version:
            # Back to an earlier version that has scored everything: it counts again.
            self.last_version[judge, rules.hash] = version
        experiment_id = store.require_experiment(EXPERIMENT)
        items = []
        key = store.export_key(experiment_id, exported.exchange.export_id)
        assert key is not None
        for number, item in enumerate(exported.exchange.items):
            if number >= most:
                break
            self.given += 1
            value = 1 + self.given % 5
            items.append(scored(item, dict.fromkeys(item.scores, value), None, None))  # type: ignore[arg-type]
            run_id, index, *_ = key["items"][item.id]
            self.scores[_content(self.backend.runs[run_id]), index, judge, rules.hash, version] = value
            self.last_version[judge, rules.hash] = version
        exchange = with_items(exported.exchange, identity, items)
        if not one_by_one:
            apply.run(exchange, store, source="file")
            return
        cells = {c.run.run_id: c for c in store.holdings(experiment_id).cells}
        for item in items:
            one = with_items(exported.exchange, identity, [item])
            _, after = apply.run_on(one, self.store, experiment_id, key, cells, source="panel")
            cells |= {c.run.run_id: c for c in after}
        marks.refresh(self.store, experiment_id)

    # -- what must be true -------------------------------------------------------------------------

    @invariant()
    def the_answer_is_the_models(self) -> None:
        if not self.planned:
            return
        current = {("v1", self.planned["v1"])} | {
            (n, self.planned[n]) for n in (*SCENARIOS, *MODELS) if n in self.planned
        }
        there: dict[Any, int] = {}
        ended = 0
        for run in self.backend.runs.values():
            if run.tags.get("tipbench.kind") == "cell" and run.status == "FINISHED":
                ended += 1
                content = _content(run)
                if all(part in current for part in content[:3]):
                    # Of twins with a different number of tips the one that has scores counts, else the fuller one.
                    there[content] = max(there.get(content, 0), int(run.tags["tipbench.n_candidates"]))
        for rubric in self.rubrics:
            for store in (self.store, memory_store(self.backend)):
                found = status.run(EXPERIMENT, store, rubric, Asked(MANUAL))
                assert found.cells == found.counted + found.superseded + found.twins + found.failed == ended
                assert found.counted == len(there)
                humans = {(c, i) for (c, i, judge, r, _) in self.scores if r == rubric.hash and judge == "ann"}
                waiting = {c for c, n in there.items() if any((c, i) not in humans for i in range(self._tips(c, n)))}
                assert found.pending == len(waiting)
                noted = marks.noted_pending(store, store.require_experiment(EXPERIMENT), rubric.hash, Asked(MANUAL))
                assert noted is None or noted == found.pending

    @invariant()
    def the_board_has_the_current_scores(self) -> None:
        if not self.planned:
            return
        for rubric in self.rubrics:
            holdings = self.store.holdings(self.store.require_experiment(EXPERIMENT))
            board = compare.rank(EXPERIMENT, self.store, rubric).leaderboard
            kinds = {judge for (_, _, judge, r, _) in self._on_board(rubric.hash)}
            counting = kinds - {"baseline"} or kinds
            judged = {(c, i) for (c, i, judge, r, v) in self._on_board(rubric.hash) if judge in counting}
            assert sum(cell.n_judged for cell in board.cells) == len(judged)
            assert len({(c.model, c.prompt, c.variant) for c in board.cells}) == len(board.cells)
            assert holdings.cells == () or board.cells

    def _on_board(self, rubric_hash: str) -> list[tuple[Any, int, str, str, str]]:
        current = {("v1", self.planned["v1"])} | {
            (n, self.planned[n]) for n in (*SCENARIOS, *MODELS) if n in self.planned
        }
        in_force: dict[str, str] = {}
        on_board = [key for key in self.scores if key[3] == rubric_hash and all(part in current for part in key[0][:3])]
        for judge in KINDS:
            versions = [key[4] for key in on_board if key[2] == judge]
            if versions:
                last = self.last_version[judge, rubric_hash]
                in_force[judge] = last if last in versions else versions[-1]
        return [key for key in on_board if key[4] == in_force[key[2]]]

    def _tips(self, content: Any, most: int) -> int:
        return self.store_tips().get(content, most)

    def store_tips(self) -> dict[Any, int]:
        """Tips of the run that stands for a content: the one that was judged, where one was."""
        found: dict[Any, int] = {}
        holdings = memory_store(self.backend).holdings(self.store.require_experiment(EXPERIMENT))
        for cell in holdings.cells:
            content = _content(cell.run)
            if cell.scores:
                found[content] = max(found.get(content, 0), cell.n_candidates)
        return found


def _content(run: Any) -> tuple[Any, ...]:
    """What a run is of, by the texts that went into it: prompt, scenario, model, temperature."""
    prompt, scenario = _HASHES.get(run.params["prompt_hash"]), _HASHES.get(run.params["scenario_hash"])
    model, _, version = run.params["model_digest"].rpartition(" ")
    return (prompt, scenario, (model, int(version)), run.params["temperature"])


def _other_rubric() -> Rubric:
    rubric = load_rubric()
    return rubric.model_copy(update={"name": "another"})


def _hashes() -> dict[str, tuple[str, int]]:
    """Content hash -> the name and version that it is of."""
    from tipbench.catalog import Prompt, Scenario
    from tipbench.collecting.plan import scenario_hash

    found = {}
    for version in range(3):
        prompt = Prompt(name="v1", user=f"Version {version}: {{{{ situation }}}}")
        found[prompt.hash] = ("v1", version)
        for s in SCENARIOS:
            found[scenario_hash(Scenario(id=s, title=s, situation=f"{s} version {version}"))] = (s, version)
    return found


_HASHES = _hashes()
Histories.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHistories = Histories.TestCase
TestHistories.pytestmark = [pytest.mark.unit]


def test_a_judges_earlier_version_that_is_asked_again_counts_again() -> None:
    """As with prompts: to go back brings back what was there, and asks nothing twice."""
    history = Histories()
    history.collects(["one:1b", "two:1b"], 2, False)
    for digest in ("d0", "d1", "d0"):
        history.pulls_the_judge_anew(digest)
        history.judges("ollama:x", 0, 20, False)
        history.the_board_has_the_current_scores()
        found = status.run(EXPERIMENT, history.store, history.rubrics[0], Asked(MANUAL)).judges
        version = judge_version("llm", {"digest": digest})
        assert [judge.version for judge in found if judge.in_force] == [version]
    assert history.given == 2 * 8  # nothing was scored a third time
    history.teardown()
