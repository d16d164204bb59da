"""Nothing that a judge wrote is ever overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tipbench.catalog import load_rubric
from tipbench.cli.exchange_files import guard_scores, put_aside
from tipbench.errors import InputError
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric, JudgeIdentity
from tipbench.judging.validate import write_exchange

pytestmark = pytest.mark.unit


def exchange(export: str, score: int | None = None, rationale: str | None = None) -> Exchange:
    rubric = load_rubric()
    scores = dict.fromkeys((c.id for c in rubric.criteria), score)
    return Exchange(
        experiment="tip-bench-x",
        export_id=export * 16,
        rubric_hash=rubric.hash,
        judge=JudgeIdentity(name="ann", kind="human") if score is not None else None,
        instructions="i",
        rubric=ExchangeRubric.model_validate(rubric.judge_view(), strict=False),
        items=(ExchangeItem(id="0" * 16, scenario="s", tip="t", scores=scores, rationale=rationale),),
    )


def test_a_begun_file_of_another_export_is_kept_under_another_name_however_often(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    for score in (1, 2, 3):
        write_exchange(exchange("a", score), path)
        assert put_aside(path, "b" * 16) is False and not path.exists()
    kept = sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".json")
    assert len(kept) == 3 and len({(tmp_path / name).read_text() for name in kept}) == 3


def test_a_begun_file_of_this_export_stays(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    write_exchange(exchange("a", None, "half a thought"), path)
    assert put_aside(path, "a" * 16) is True and path.exists()
    with pytest.raises(InputError, match="already holds scores"):
        guard_scores(path, False)
    guard_scores(path, True)
    assert put_aside(path, "a" * 16, even_ours=True) is False
    assert len([p for p in tmp_path.iterdir() if "half a thought" in p.read_text()]) == 1


def test_a_file_that_nobody_touched_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    write_exchange(exchange("a"), path)
    guard_scores(path, False)
    assert put_aside(path, "b" * 16) is False and path.exists()


def test_what_cannot_be_read_is_somebodys_work_too(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    path.write_text("{half a file that an agent wrote")
    with pytest.raises(InputError, match="no exchange file that can be read"):
        put_aside(path, "b" * 16)
    assert put_aside(path, "b" * 16, even_ours=True) is False and not path.exists()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["{half a file that an agent wrote"]
