"""Copies of the answer where people and the DAG look for them: tags in MLflow. They never decide anything here.

- `judge_pending` on a cell's run, as the contract has it: some tip of it waits for somebody (the baseline is nobody).
- `tipbench.pending.RUBRIC.WHO` on the experiment, RUBRIC being the first twelve digits of the rubric's hash: JSON with the cells and
  candidates that wait for who was asked. The DAG's sensor reads it. It is there once somebody was asked, and renewed by whatever changes it.
- `tipbench.pending_sample.RUBRIC.WHO`, likewise, for each sample that was asked for: JSON with the `tips` in it, and `by`, how many of them each
  judge that has begun has left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import sha256

from tipbench.counting import sample
from tipbench.counting.census import Census, Entry, take
from tipbench.counting.judged import ANYONE, MANUAL, Asked, Judges
from tipbench.store import Store
from tipbench.store.records import CellRecord

PENDING = "tipbench.pending."
SAMPLED = "tipbench.pending_sample."
MARKED = "tipbench.marked"
"""On the experiment: the rubric by which cells were marked last, and a hash of those that did not count."""
ROUNDS = 8
"""Looks until the marks stand still: whoever writes a mark looks again, so that the last one to write has seen all."""


def refresh(store: Store, experiment_id: str, rubric_hash: str = "", asked: Asked | None = None) -> Census:
    """Renew the marks; `rubric_hash` and `asked` are who was asked just now, under which rubric. Returns the last census."""
    for _ in range(ROUNDS):
        census = take(store.holdings(experiment_id))
        tags = store.notes(experiment_id, "")
        there = {key.removeprefix(PENDING): value for key, value in tags.items() if key.startswith(PENDING)}
        wanted = {PENDING + key: value for key, value in _wanted(there, census, rubric_hash, asked).items()}
        wanted |= _wanted_of_samples(tags, census)
        for key, value in wanted.items():
            store.note(experiment_id, key, value)
        _mark_cells(store, experiment_id, census, rubric_hash, tags.get(MARKED, ""))
        if not wanted:
            break
    return census


def key_of(rubric_hash: str, asked: Asked) -> str:
    """The end of the mark's key."""
    return f"{rubric_hash[:12]}.{asked.who}"


def noted_pending(store: Store, experiment_id: str, rubric_hash: str, asked: Asked) -> int | None:
    """Cells that wait for who was asked, as the experiment's mark has it; None when nobody was asked."""
    value = store.notes(experiment_id, PENDING).get(key_of(rubric_hash, asked))
    return None if value is None else int(json.loads(value)["cells"])


def sample_left(store: Store, experiment_id: str, rubric_hash: str, names: Collection[str]) -> int | None:
    """Tips that the one of these judges who is furthest behind has left of the sample that people were asked for, as its mark has it.

    None when no sample was asked for, or nothing of it counts any more.
    """
    value = store.notes(experiment_id, SAMPLED).get(key_of(rubric_hash, Asked(MANUAL)))
    if value is None or not (kept := json.loads(value))["tips"]:
        return None
    return max((int(kept["by"].get(name, kept["tips"])) for name in names), default=0)


def is_wanted(store: Store, experiment_id: str) -> bool:
    """Was somebody asked, so that there are marks to renew?"""
    return bool(store.notes(experiment_id, PENDING))


def _wanted(there: Mapping[str, str], census: Census, rubric_hash: str, asked: Asked | None) -> dict[str, str]:
    """The marks that say something else than they should."""
    questions = {}
    for key, value in there.items():
        try:
            questions[key] = (str(json.loads(value)["rubric"]), Asked(key.partition(".")[2]))
        except (ValueError, KeyError, TypeError):
            continue
    if asked is not None and rubric_hash and asked.who.isalpha():
        questions[key_of(rubric_hash, asked)] = (rubric_hash, Asked(asked.who))
    wanted = {}
    for key, (rubric, who) in questions.items():
        judges = Judges((e.cell for e in census.counted), rubric)
        waiting = [len(judges.pending(e.cell, who)) for e in census.counted]
        value = json.dumps(
            {"rubric": rubric, "asked": who.who, "cells": sum(n > 0 for n in waiting), "candidates": sum(waiting)}
        )
        if there.get(key) != value:
            wanted[key] = value
    return wanted


def _wanted_of_samples(tags: Mapping[str, str], census: Census) -> dict[str, str]:
    """The marks of samples that say something else than they should, by their whole keys."""
    wanted = {}
    for one in sample.requests(tags):
        judges = Judges((e.cell for e in census.counted), one.rubric_hash)
        tips, by = one.sample.left(census.counted, judges)
        value = json.dumps({"rubric": one.rubric_hash, "scenarios": len(one.sample.scenarios), "tips": tips, "by": by})
        key = SAMPLED + key_of(one.rubric_hash, Asked(one.who))
        if tags.get(key) != value:
            wanted[key] = value
    return wanted


def _mark_cells(store: Store, experiment_id: str, census: Census, rubric_hash: str, noted: str) -> None:
    """Make the cells' tags say what they should, if something has happened that changes more than an applied file does.

    That is another rubric, or cells that were superseded, came back, or turned out to be twins. `noted` is what MARKED said.
    """
    rubric = rubric_hash or noted.partition(" ")[0]
    aside = sorted(e.run_id for e in census.entries if e.standing in ("superseded", "twin") and e.cell.finished)
    note = f"{rubric} {sha256(' '.join(aside).encode()).hexdigest()[:16]}"
    if note == noted:
        return
    if noted or aside or any(e.cell.scores for e in census.counted):
        wanted = {e.run_id for e in _waiting(census, rubric)}
        there = store.marked_pending(experiment_id)
        ended = {e.run_id for e in census.entries}
        store.mark_pending(dict.fromkeys((there & ended) - wanted, False) | dict.fromkeys(wanted - there, True))
    store.note(experiment_id, MARKED, note)


def _waiting(census: Census, rubric_hash: str) -> list[Entry]:
    """Counted cells that wait for somebody: under the rubric or, when none is named, under every one that was used."""
    asked = Asked(ANYONE)
    cells = [e.cell for e in census.counted]
    rubrics = [rubric_hash] if rubric_hash else sorted({r.rubric_hash for cell in cells for r in cell.scores})
    judges = [Judges(cells, rubric) for rubric in rubrics]
    return [e for e in census.counted if all(j.pending(e.cell, asked) for j in judges)]


def score_means(cell: CellRecord, rubric_hash: str) -> dict[str, float]:
    """`score_CRITERION`: means over all judges and candidates, for MLflow's charts."""
    records = [r for r in cell.scores if r.rubric_hash == rubric_hash]
    found = {}
    for position, criterion in enumerate(records[0].criteria if records else ()):
        scores = [s[position] for r in records for s in r.scores.values()]
        if scores:
            found[f"score_{criterion}"] = sum(scores) / len(scores)
    return found


def copy_scores(store: Store, experiment_id: str, census: Census, rubric_hash: str, run_ids: Collection[str]) -> None:
    """Bring the copies on these cells up to date: the means as metrics, and whether the cell waits for somebody, as a tag."""
    judges = Judges((e.cell for e in census.counted), rubric_hash)
    waits = {e.run_id: bool(judges.pending(e.cell, Asked(ANYONE))) for e in census.counted}
    store.copy_scores(
        {
            e.run_id: (score_means(e.cell, rubric_hash), waits.get(e.run_id, False))
            for e in census.entries
            if e.run_id in run_ids
        }
    )
