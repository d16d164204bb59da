"""Export: put the candidates that wait for who was asked into one blind, self-contained exchange file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tipbench.catalog import Rubric
from tipbench.counting import marks, sample
from tipbench.counting.census import Census
from tipbench.counting.judged import ANYONE, BASELINE, LLM, MANUAL, Asked, Judges
from tipbench.counting.sample import Sample
from tipbench.errors import InputError
from tipbench.judging.blinding import blind, export_id, mask_names
from tipbench.judging.exchange import Exchange, ExchangeItem, ExchangeRubric, identify
from tipbench.judging.validate import exchange_bytes
from tipbench.rounds import record
from tipbench.rounds.blocks import blocks_of
from tipbench.store import Store, now_ms
from tipbench.store.records import CellRecord, Heading, Judge, Score, text_hash


@dataclass(frozen=True)
class ExportResult:
    """The file, and what it holds."""

    exchange: Exchange
    n_items: int
    n_repeats: int
    n_cells: int
    n_candidates: int
    """Candidates that count in the experiment, judged ones included."""


def run(
    experiment: str,
    store: Store,
    rubric: Rubric,
    *,
    judge: str | None = None,
    asked: Asked | None = None,
    seed: int = 0,
    repeats: float = 0.05,
    expect: Sequence[str] = (),
    n_sample: int = 0,
    sample_tips: int = 0,
) -> ExportResult:
    """An exchange file with every candidate that waits, under `rubric`, for who was asked.

    That is `asked`, else the judge named `judge`, else anybody but the baseline. With `n_sample`, only what waits of a random
    sample of so many scenarios, and `sample_tips` of each cell's tips (0: all), for a person or an agent unless somebody is
    named; the request is kept in the store. `repeats` is the share of items shown
    twice. The same call on the same state gives the same file. Raises InputError when there is no such experiment, or when
    `expect` names models and none of them has a finished cell that counts.
    """
    if judge is not None:
        identify(judge, "human", "--judge")
    asked = asked or (Asked(judge) if judge else Asked(MANUAL) if n_sample else Asked())
    experiment_id = store.require_experiment(experiment)
    census = marks.refresh(store, experiment_id, rubric.hash, asked)
    if reinstate(store, experiment_id, census, rubric.hash, asked):
        census = marks.refresh(store, experiment_id, rubric.hash, asked)
    wanted = None
    if n_sample:
        wanted = request(store, experiment_id, census, rubric.hash, asked, n_sample, sample_tips, seed)
    return from_census(experiment, experiment_id, census, store, rubric, judge, asked, seed, repeats, expect, wanted)


def reinstate(store: Store, experiment_id: str, census: Census, rubric_hash: str, asked: Asked) -> bool:
    """Let a judge's earlier version count again that is asked now and has nothing left to score: back to an older digest or prompt.

    The version that scored last is in force, so one of its scores is said once more, as it is. Where something is left to score,
    the first new score does it. Returns whether there was anything to say.
    """
    if not asked.version:
        return False
    judges = Judges((entry.cell for entry in census.counted), rubric_hash)
    if judges.in_force(asked.who) in ("", asked.version):
        return False
    if any(judges.pending(entry.cell, asked) for entry in census.counted):
        return False
    cell = next(entry.cell for entry in census.counted if entry.cell.n_candidates)
    said = next(r for r in cell.scores if judges.answers(r, asked))
    last = max(r.last_ms for e in census.counted for r in e.cell.scores if r.judge == asked.who)
    index, scores = next(iter(said.scores.items()))
    again = Score(
        run_id=cell.run.run_id,
        index=index,
        repeat=False,
        scores=tuple(scores),
        at_ms=max(now_ms(), last + 1),
        expected=said.expected.get(index),
        rationale=said.rationales.get((index, False)),
    )
    heading = Heading(Judge(said.judge, said.kind, said.version), rubric_hash, said.criteria)
    store.log_scores(experiment_id, heading, [again], {}, f"{said.version}-again-{again.at_ms}")
    return True


def request(
    store: Store,
    experiment_id: str,
    census: Census,
    rubric_hash: str,
    asked: Asked,
    n_sample: int,
    tips: int,
    seed: int,
) -> Sample:
    """The sample that was asked for before in these words, of whomever, else a new one; kept for who is asked now, with its mark.

    Raises InputError when there are fewer scenarios than `n_sample`.
    """
    tags = store.notes(experiment_id, "")
    known = [one for one in sample.asked_for(tags, rubric_hash) if one.words == (n_sample, tips, seed)]
    wanted = known[0] if known else sample.draw(census, n_sample, tips, seed)
    tag, text = sample.key(rubric_hash, asked), wanted.to_text(rubric_hash)
    if tags.get(tag) != text:
        store.note(experiment_id, tag, text)
        marks.refresh(store, experiment_id)
    return wanted


def from_census(
    experiment: str,
    experiment_id: str,
    census: Census,
    store: Store,
    rubric: Rubric,
    judge: str | None,
    asked: Asked,
    seed: int = 0,
    repeats: float = 0.05,
    expect: Sequence[str] = (),
    wanted: Sample | None = None,
) -> ExportResult:
    """The same from a census at hand; the marks in MLflow are left alone."""
    cells = [entry.cell for entry in census.counted]
    if expect and not any(cell.model in expect for cell in cells):
        raise _nothing_to_judge(experiment, [e.cell for e in census.failed], expect)
    judges = Judges(cells, rubric.hash)
    if wanted is None:
        pending = [(cell, indices) for cell in cells if (indices := judges.pending(cell, asked))]
    else:
        pending = [(e.cell, indices) for e in census.counted if (indices := wanted.pending(e, judges, asked))]
    texts = store.texts(experiment_id, [cell for cell, _ in pending])
    models = sorted({entry.cell.model for entry in census.entries})
    prompts = sorted({entry.cell.prompt for entry in census.entries})
    secret = store.blinding_secret(experiment_id)
    blinded = blind(
        [(cell.run.run_id, i) for cell, indices in pending for i in indices],
        secret,
        seed=seed,
        salt=judge or "",
        repeats=repeats,
        blocks=blocks_of(census, record.read(store, experiment_id, rubric.hash)),
    )
    criteria = [c.id for c in rubric.criteria]
    items = []
    for item in blinded:
        situation, by_index = texts[item.run_id]
        tip = mask_names(by_index[item.index], models, prompts, situation)
        items.append(ExchangeItem(id=item.item_id, scenario=situation, tip=tip, scores=dict.fromkeys(criteria, None)))
    exchange = Exchange(
        experiment=experiment,
        export_id=export_id(secret, blinded, rubric.hash),
        rubric_hash=rubric.hash,
        instructions=rubric.told(),
        rubric=ExchangeRubric.model_validate_json(json.dumps(rubric.judge_view())),
        items=tuple(items),
    )
    key = {
        "schema": "tipbench.key/1",
        "export_id": exchange.export_id,
        "rubric_hash": rubric.hash,
        "asked": asked.who,
        "rubric_file": rubric.file,
        "items": {
            b.item_id: [b.run_id, b.index, b.repeat, i.scenario, i.tip, text_hash(texts[b.run_id][1][b.index])]
            for b, i in zip(blinded, items, strict=True)
        },
    }
    store.save_export(experiment_id, exchange.export_id, key, judge, exchange_bytes(exchange))
    return ExportResult(
        exchange=exchange,
        n_items=len(items),
        n_repeats=sum(b.repeat for b in blinded),
        n_cells=len(pending),
        n_candidates=sum(c.n_candidates for c in cells),
    )


def asked_by(text: str) -> Asked:
    """Who is meant by `--for`: manual, llm, baseline, anyone, or a judge's name. Raises InputError for what is no name."""
    if text in (ANYONE, MANUAL, LLM, BASELINE):
        return Asked(text)
    return Asked(identify(text, "human", "--for").name)


def _nothing_to_judge(experiment: str, failed: Sequence[CellRecord], expect: Sequence[str]) -> InputError:
    """Says of each model why there is nothing of it."""
    faults = []
    for model in expect:
        failures = [cell.failure for cell in failed if cell.model == model and cell.failure is not None]
        words = f"{len(failures)} cells failed: {failures[0].message}" if failures else "no cell was collected"
        faults.append(f"{model}: {words}")
    return InputError(f"{experiment} has nothing to judge; collect again once this is mended", tuple(faults))
