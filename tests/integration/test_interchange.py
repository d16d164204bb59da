"""Outputs and scores of one's own: in, out and in again; and the gate between two experiments."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tipbench
from tipbench.catalog import Rubric, load_rubric
from tipbench.errors import InputError
from tipbench.leaderboard.gate import to_markdown
from tipbench.leaderboard.options import BoardOptions
from tipbench.stages import compare, export_scores, gate, importing
from tipbench.store import Store, open_store

pytestmark = pytest.mark.integration

RUBRIC = load_rubric()
CRITERIA = ("relevance", "actionability", "tone")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_db: Path) -> Store:
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_db, folder)
    return open_store(str(folder))


def table(
    *,
    models: dict[str, float],
    scenarios: int = 4,
    tips: int = 2,
    judges: tuple[str, ...] = ("ann", "bob"),
    seed: int = 1,
    situation: bool = True,
) -> list[dict[str, Any]]:
    """Rows of a board whose models differ by their level."""
    rng = random.Random(seed)
    rows = []
    for model, level in models.items():
        for s in range(scenarios):
            for t in range(tips):
                row = {"model": model, "prompt": "p", "scenario": f"s{s}", "text": f"{model} {seed} tip {t} for {s}"}
                if situation:
                    row["situation"] = f"Situation {s}."
                for judge in judges:
                    scores = {c: min(5, max(1, round(level + rng.gauss(0, 0.7)))) for c in CRITERIA}
                    rows.append(row | {"judge": judge, "judge_kind": "human"} | scores)
    return rows


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(dict.fromkeys(k for r in rows for k in r)))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def bring(
    store: Store, experiment: str, content: bytes, rubric: Rubric = RUBRIC, **more: Any
) -> importing.ImportResult:
    return importing.run(io.BytesIO(content), "own.csv", experiment, store, rubric, **more)


def told(result: importing.ImportResult) -> tuple[int, int, int, int, int]:
    return (
        result.new_candidates, result.known_candidates, result.new_scores, result.changed_scores, result.unchanged_scores,
    )  # fmt: skip


def test_in_and_out_and_in_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    content = as_csv(table(models={"m": 4.0, "n": 2.5}))
    assert told(bring(store, "tip-bench-own", content, dry_run=True)) == (16, 0, 32, 0, 0)
    with pytest.raises(InputError):
        store.require_experiment("tip-bench-own")
    assert told(bring(store, "tip-bench-own", content)) == (16, 0, 32, 0, 0)
    assert told(bring(store, "tip-bench-own", content)) == (0, 16, 0, 0, 32)
    board = compare.rank("tip-bench-own", store, RUBRIC).leaderboard
    assert [(c.model, c.n_judged, c.coverage) for c in board.cells] == [("m", 8, 1.0), ("n", 8, 1.0)]
    assert board.cells[0].seconds_per_tip is None
    first = tmp_path / "one.csv"
    assert export_scores.run("tip-bench-own", store, RUBRIC, first).rows == 32
    assert told(bring(store, "tip-bench-own", first.read_bytes())) == (0, 16, 0, 0, 32)
    assert told(bring(store, "tip-bench-copy", first.read_bytes())) == (16, 0, 32, 0, 0)
    for name in ("two.csv", "two.jsonl"):
        export_scores.run("tip-bench-copy", store, RUBRIC, tmp_path / name)
    assert (tmp_path / "two.csv").read_bytes() == first.read_bytes()
    assert told(importing.run((tmp_path / "two.jsonl").open("rb"), "two.jsonl", "tip-bench-own", store, RUBRIC))[0:3] == (
        0, 16, 0,
    )  # fmt: skip


def test_the_order_in_which_cells_were_written_does_not_show(store: Store, tmp_path: Path) -> None:
    rows = table(models={"m": 4.0, "n": 2.5})
    files = []
    for name, order in (("fore", rows), ("back", rows[::-1])):
        # A scenario after the other, so that each cell has a later time than the one before.
        for scenario in dict.fromkeys(r["scenario"] for r in order):
            bring(store, f"tip-bench-{name}", as_csv([r for r in rows if r["scenario"] == scenario]))
        export_scores.run(f"tip-bench-{name}", store, RUBRIC, tmp_path / f"{name}.csv")
        files.append((tmp_path / f"{name}.csv").read_bytes())
    assert files[0] == files[1]


def test_more_rows_extend_and_other_scores_change(store: Store) -> None:
    rows = table(models={"m": 3.0}, judges=("ann",))
    bring(store, "tip-bench-grow", as_csv(rows))
    more = [
        {**rows[0], "text": "one more"},
        {**rows[1], "tone": 1 if rows[1]["tone"] != 1 else 2},
        {**rows[2], "judge": "cy"},
    ]
    assert told(bring(store, "tip-bench-grow", as_csv(more))) == (1, 2, 2, 1, 0)
    assert told(bring(store, "tip-bench-grow", as_csv(more))) == (0, 3, 0, 0, 3)
    assert told(bring(store, "tip-bench-grow", as_csv(rows)))[3] == 1  # and back again
    assert compare.rank("tip-bench-grow", store, RUBRIC).leaderboard.cells[0].n_candidates == 9


def test_candidates_without_scores_wait_for_a_judge_as_collected_ones_do(store: Store) -> None:
    from tipbench.stages import export

    rows = [
        {k: v for k, v in r.items() if k not in ("judge", "judge_kind", *CRITERIA)} for r in table(models={"m": 3.0})
    ]
    bring(store, "tip-bench-wait", as_csv(rows))
    exported = export.run("tip-bench-wait", store, RUBRIC)
    assert exported.n_items - exported.n_repeats == 8
    assert {i.scenario for i in exported.exchange.items} == {f"Situation {s}." for s in range(4)}


def test_what_contradicts_the_experiment_is_refused_by_line_and_nothing_is_written(store: Store) -> None:
    bring(store, "tip-bench-no", as_csv(table(models={"m": 3.0}, judges=("ann",))))
    state = store.state(store.require_experiment("tip-bench-no"))
    rows = table(models={"o": 3.0}, judges=("ann",))
    rows[2]["situation"] = rows[3]["situation"] = "Another one."
    with pytest.raises(InputError, match="line 4, situation: is not the one that scenario s1 has in this experiment"):
        bring(store, "tip-bench-no", as_csv(rows))
    assert store.state(store.require_experiment("tip-bench-no")) == state


def test_expected_scores_are_kept_and_can_be_compared_by(store: Store, tmp_path: Path) -> None:
    rows = table(models={"m": 3.0, "n": 3.0}, judges=("gpt",))
    for row in rows:
        row |= {"judge_kind": "llm", "judge_version": "v1", **dict.fromkeys(CRITERIA, 3)}
        row |= {f"{c}_expected": 3.4 if row["model"] == "m" else 2.6 for c in CRITERIA}
    bring(store, "tip-bench-exp", as_csv(rows))
    whole = compare.rank("tip-bench-exp", store, RUBRIC).leaderboard
    expected = compare.rank("tip-bench-exp", store, RUBRIC, BoardOptions(scores="expected")).leaderboard
    assert [c.composite for c in whole.cells] == [3.0, 3.0]
    assert [(c.model, c.composite) for c in expected.cells] == [("m", pytest.approx(3.4)), ("n", pytest.approx(2.6))]
    out = tmp_path / "out.csv"
    export_scores.run("tip-bench-exp", store, RUBRIC, out)
    assert "relevance_expected" in out.read_text().splitlines()[0] and ",v1," in out.read_text()
    assert told(bring(store, "tip-bench-exp", out.read_bytes())) == (0, 16, 0, 0, 16)


def test_a_collected_cell_is_found_again_and_never_extended(store: Store, tmp_path: Path) -> None:
    from tests.fakes.ollama_server import FakeOllama
    from tipbench.config import Config
    from tipbench.engines.ollama import OllamaEngine
    from tipbench.stages import collect

    fake = FakeOllama().start()
    config = Config(
        models="small:1b", prompts="v1", n_tips=2, n_scenarios=2, experiment="tip-bench-mix", ollama_url=fake.url,
        spool=str(tmp_path / "spool"),
    )  # fmt: skip
    assert collect.run(config, OllamaEngine(fake.url), store).collected == 2
    fake.stop()
    out = tmp_path / "scores.csv"
    export_scores.run("tip-bench-mix", store, RUBRIC, out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and not any(row["judge"] for row in rows)
    scored = [{**row, "judge": "ann", "judge_kind": "human", **dict.fromkeys(CRITERIA, 4)} for row in rows]
    assert told(bring(store, "tip-bench-mix", as_csv(scored))) == (0, 4, 4, 0, 0)
    with pytest.raises(InputError, match="was collected here, and wrote no such text"):
        bring(store, "tip-bench-mix", as_csv([*scored, {**scored[0], "index": "5", "text": "A tip of mine."}]))
    own = {"model": "small:1b", "prompt": "v1", "scenario": rows[0]["scenario"], "text": "A tip of mine."}
    assert told(bring(store, "tip-bench-mix", as_csv([own])))[:2] == (1, 0)
    board = compare.rank("tip-bench-mix", store, RUBRIC).leaderboard
    assert {(c.variant, c.n_judged) for c in board.cells} == {("engine ollama", 4), ("engine import", 0)}


# -- the gate --------------------------------------------------------------------------------------


def pair(
    store: Store, name: str, before: dict[str, float], now: dict[str, float], scenarios: int = 12
) -> tuple[str, str]:
    old, new = f"tip-bench-{name}-old", f"tip-bench-{name}-new"
    bring(store, old, as_csv(table(models=before, scenarios=scenarios, tips=3, judges=("ann",), seed=1)))
    bring(store, new, as_csv(table(models=now, scenarios=scenarios, tips=3, judges=("ann",), seed=2)))
    return new, old


def test_a_loss_fails_a_change_of_nothing_passes_and_too_few_data_are_not_shown(store: Store) -> None:
    new, old = pair(store, "gate", {"m": 4.0, "n": 3.0, "gone": 3.0}, {"m": 2.8, "n": 3.0, "fresh": 3.0})
    found = gate.run(new, old, store, RUBRIC, fail_on="worse", margin=0.3)
    by_model = {c.model: c for c in found.cells}
    assert found.failed and by_model["m"].standing == "worse" and by_model["m"].fails and not by_model["n"].fails
    assert by_model["m"].difference == pytest.approx((by_model["m"].composite or 0) - (by_model["m"].baseline or 0))
    assert (found.only_here, found.only_in_baseline) == (("fresh with p",), ("gone with p",))
    text = to_markdown(found)
    assert text.startswith("❌") and "| m with p |" in text and "**worse**" in text

    same, old = pair(store, "same", {"m": 3.4}, {"m": 3.4}, scenarios=24)
    assert not gate.run(same, old, store, RUBRIC, fail_on="worse", margin=0.3).failed
    assert not gate.run(same, old, store, RUBRIC, fail_on="not-shown-within-margin", margin=0.6).failed
    assert gate.run(same, old, store, RUBRIC, fail_on="not-shown-within-margin", margin=0.01).failed

    few, old = pair(store, "few", {"m": 3.4}, {"m": 3.4}, scenarios=2)
    assert not gate.run(few, old, store, RUBRIC, fail_on="worse", margin=0.3).failed
    open_ = gate.run(few, old, store, RUBRIC, fail_on="not-shown-within-margin", margin=2.0)
    assert open_.failed and open_.cells[0].standing == "too few scenarios"


def test_experiments_that_have_nothing_in_common_are_bad_input(store: Store) -> None:
    new, old = pair(store, "apart", {"m": 3.0}, {"other": 3.0}, scenarios=3)
    with pytest.raises(InputError, match=r"no \(model, prompt\) in common"):
        gate.run(new, old, store, RUBRIC, margin=0.3)
    bring(store, "tip-bench-cy", as_csv(table(models={"m": 3.0}, judges=("cy",))))
    with pytest.raises(InputError, match="no judge has scored both"):
        gate.run("tip-bench-cy", old, store, RUBRIC, margin=0.3)
    with pytest.raises(InputError, match="margin"):
        gate.run(new, old, store, RUBRIC, margin=0)


def test_the_command_ends_with_6_and_leaves_a_comment(tipbench: Tipbench, tmp_path: Path) -> None:
    url = tmp_path / "store"
    for name, level, seed in (("old", 4.2, 1), ("new", 2.2, 2)):
        file = tmp_path / f"{name}.csv"
        file.write_bytes(as_csv(table(models={"m": level}, scenarios=8, judges=("ann",), seed=seed)))
        assert tipbench("import", file, "--experiment", f"tip-bench-{name}", "--mlflow-url", url).returncode == 0
    common = ["compare", "--experiment", "tip-bench-new", "--against", "tip-bench-old", "--mlflow-url", url]
    assert tipbench(*common).returncode == 0
    failed = tipbench(*common, "--fail-on", "worse", "--out", tmp_path / "gate")
    assert failed.returncode == 6 and "Failed: m with p shown worse" in failed.stdout
    assert (tmp_path / "gate" / "gate.md").read_text().startswith("❌")
    assert json.loads((tmp_path / "gate" / "gate.json").read_text())["schema"] == "tipbench.gate/1"
    swapped = ["compare", "--experiment", "tip-bench-old", "--against", "tip-bench-new", "--mlflow-url", url]
    assert tipbench(*swapped, "--fail-on", "not-shown-within-margin").returncode == 0
    alone = tipbench("compare", "--experiment", "tip-bench-old", "--mlflow-url", url, "--fail-on", "worse")
    assert alone.returncode == 2 and "--against" in alone.stderr
