"""The store on both backends, for real: an MLflow server over HTTP, and a local folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import MlflowServer
from tipbench.errors import InputError
from tipbench.store import Store, StoreUnreachable, open_store
from tipbench.store.backend import StoreError
from tipbench.store.records import Candidate, CellResult, Failure, Heading, Judge, PlannedCell, Run, Score, ScoreRecord
from tipbench.store.rest import RestBackend

pytestmark = pytest.mark.integration
_numbers = itertools.count()
RUBRIC = "ab" * 32


@pytest.fixture(params=["server", "folder"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    url = (
        request.getfixturevalue("mlflow_url")
        if request.param == "server"
        else str(request.getfixturevalue("store_folder"))
    )
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def experiment(store: Store) -> str:
    return store.ensure_experiment(f"tip-bench-store-{next(_numbers)}")


def candidate(index: int, text: str = "Set a timer for ten minutes.") -> Candidate:
    return Candidate(
        index=index, seed=index, text=text, done_reason="stop", ttft_s=0.1, load_s=0.0, prompt_tokens=9, prompt_s=0.1,
        output_tokens=20, output_s=0.5, total_s=0.6, wall_s=0.61, attempts=1,
    )  # fmt: skip


def cell(cell_id: str = "c1", failure: Failure | None = None, n: int = 2, scenario: str = "first-budget") -> CellResult:
    return CellResult(
        cell_id=cell_id, collection_id="col", model="m:1b", prompt="plain", scenario=scenario, situation="A situation.",
        n_tips=2, params={"seed": "0"}, tags={}, candidates=tuple(candidate(i) for i in range(n)), flags={"empty": 0},
        resident_bytes=1000, failure=failure, started_ms=1_000, ended_ms=2_000,
    )  # fmt: skip


def half_or_whole(store: Store, experiment: str) -> Run:
    """The best run of the cell c1."""
    order = {"FINISHED": 0, "FAILED": 1, "RUNNING": 2}
    return min((c.run for c in store.cell_runs(experiment) if c.cell_id == "c1"), key=lambda r: order[r.status])


def test_a_saved_cell_reads_back_whole(store: Store, experiment: str) -> None:
    plan = [PlannedCell("c1", "m:1b", "plain", "first-budget", 2)]
    parent = store.begin_collection(experiment, "col", plan, {"node": "n"}, {"big:9b": "too big"})
    store.save_cell(experiment, parent.run_id, cell(), None)
    store.end_collection(parent, "FINISHED", {"cells_collected": 1})

    (record,) = store.cells(experiment)
    assert (record.model, record.prompt, record.scenario) == ("m:1b", "plain", "first-budget")
    assert record.finished and record.n_candidates == 2 and record.scores == ()
    assert record.run.tags["judge_pending"] == "true"
    assert record.run.params["model"] == "m:1b"
    assert record.run.metrics["tokens_per_s"] == pytest.approx(40.0)
    assert store.results([record.run]) == [cell()]
    (collection,) = store.collections(experiment)
    assert collection.plan == tuple(plan) and collection.refused == {"big:9b": "too big"}


def test_a_half_written_run_does_not_count_and_is_filled_in_place(store: Store, experiment: str) -> None:
    parent = store.begin_collection(experiment, "col", [], {}, {})
    backend = store._backend
    tags = {"tipbench.kind": "cell", "tipbench.cell_id": "c1"}
    half = backend.create_run(experiment, "half", tags, 1_000)
    assert store.cells(experiment) == []

    store.save_cell(experiment, parent.run_id, cell(), half_or_whole(store, experiment))
    (record,) = store.cells(experiment)
    assert record.run.run_id == half.run_id


def test_a_twin_from_a_lost_answer_is_swept_away(store: Store, experiment: str) -> None:
    parent = store.begin_collection(experiment, "col", [], {}, {})
    store._backend.create_run(experiment, "lost", {"tipbench.kind": "cell", "tipbench.cell_id": "c1"}, 500)
    saved = store.save_cell(experiment, parent.run_id, cell(), None)
    assert half_or_whole(store, experiment).run_id == saved.run_id
    store.sweep(experiment)
    assert [r.run_id for r in store._runs(experiment, "cell")] == [saved.run_id]


def test_a_failed_cell_is_kept_until_the_same_cell_succeeds(store: Store, experiment: str) -> None:
    parent = store.begin_collection(experiment, "col", [], {}, {})
    failure = Failure(reason="TimedOut", message="no chunk for 60 s")
    store.save_cell(experiment, parent.run_id, cell(failure=failure, n=1), None)
    (record,) = store.cells(experiment)
    assert not record.finished and record.failure == failure and record.run.status == "FAILED"

    store.save_cell(experiment, parent.run_id, cell(), half_or_whole(store, experiment))
    (record,) = store.cells(experiment)
    assert record.finished and record.failure is None and record.run.status == "FINISHED"


def test_scores_are_kept_per_judge_and_applying_again_changes_nothing(store: Store, experiment: str) -> None:
    parent = store.begin_collection(experiment, "col", [], {}, {})
    store.save_cell(experiment, parent.run_id, cell(), None)
    (record,) = store.cells(experiment)
    ann = Heading(Judge("ann", "human"), RUBRIC, ("relevance",))
    run = record.run.run_id
    given = [Score(run, 0, False, (4,), 10, item="x"), Score(run, 0, True, (5,), 10, item="y")]
    first = store.log_scores(experiment, ann, given, {"exchange.json": b"{}"}, "j1")
    (after,) = store.cells(experiment)
    assert after.scores == (ScoreRecord("ann", "human", RUBRIC, ("relevance",), {0: (4,)}, {0: (5,)}, last_ms=10),)
    assert first is not None and store.log_scores(experiment, ann, [], {}, "j1") is None
    assert [(h["item"], h["old"], h["new"]) for h in store.judgment_history(experiment)] == [
        ("x", None, [4]),
        ("y", None, [5]),
    ]

    bob = Heading(Judge("bob", "agent"), RUBRIC, ("relevance",))
    store.log_scores(experiment, bob, [Score(run, 0, False, (2,), 20), Score(run, 1, False, (3,), 20)], {}, "j2")
    store.add_scores(experiment, ann, [Score(run, 0, False, (1,), 30)])
    store.add_scores(experiment, ann, [Score(run, 1, False, (2,), 31)])
    (final,) = store.cells(experiment)
    assert {r.judge: dict(r.scores) for r in final.scores} == {"ann": {0: (1,), 1: (2,)}, "bob": {0: (2,), 1: (3,)}}
    assert store.judgment_history(experiment)[-2]["old"] == [4]
    store.copy_scores({run: ({"score_relevance": 2.0}, False)})
    tags = store.runs_of([run])[0]
    assert tags.tags["judge_pending"] == "false" and tags.metrics["score_relevance"] == 2.0


def test_cells_can_be_read_alone_and_those_that_are_gone_are_left_out(store: Store, experiment: str) -> None:
    runs = [store.save_cell(experiment, "parent", cell(name), None).run_id for name in ("c1", "c2", "c3")]
    store._backend.delete_run(runs[1])
    assert [c.cell_id for c in store.cells_of([runs[2], runs[1], runs[0], "f" * 32], experiment)] == ["c3", "c1"]


class LikeABucket(httpx.HTTPTransport):
    """Real answers, but for a file that is not there: with an S3 bucket behind it, MLflow answers 500, not 404."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        missing = request.method == "GET" and "/mlflow-artifacts/" in request.url.path and answer.status_code == 404
        return httpx.Response(500, request=request) if missing else answer


def test_a_file_that_is_not_in_the_bucket_is_told_from_an_outage(mlflow_url: str) -> None:
    backend = RestBackend(mlflow_url, retry_s=1.0)
    backend._client._transport = LikeABucket()
    store = Store(backend)
    experiment = store.ensure_experiment(f"tip-bench-store-{next(_numbers)}")
    run = store.save_cell(experiment, "parent", cell(), None)
    assert backend.get_artifact(run, "never-written.json") is None
    assert [len(result.candidates) for result in store.results([run])] == [2]
    store.close()


def test_an_export_key_is_written_once_and_found_again(store: Store, experiment: str) -> None:
    key = {"items": {"0" * 16: ["run", 0, False, "s", "t"]}}
    store.save_export(experiment, "e" * 16, key, None, b"{}")
    store.save_export(experiment, "e" * 16, key, None, b"{}")
    assert store.export_key(experiment, "e" * 16) == key
    assert store.export_key(experiment, "f" * 16) is None
    assert len(list(store._runs(experiment, "export"))) == 1


def test_the_blinding_secret_stays_the_same(store: Store, experiment: str) -> None:
    secret = store.blinding_secret(experiment)
    assert len(secret) == 32 and store.blinding_secret(experiment) == secret


def test_an_unknown_experiment_is_named_with_those_there_are(store: Store, experiment: str) -> None:
    with pytest.raises(InputError, match=r"no experiment tip-bench-nope .*tip-bench-store-"):
        store.require_experiment("tip-bench-nope")


def test_a_lost_artifact_is_an_error_that_names_the_run(store: Store, experiment: str) -> None:
    run = store._backend.create_run(experiment, "x", {"tipbench.kind": "cell", "tipbench.cell_id": "c9"}, 1)
    with pytest.raises(StoreError, match=run.run_id):
        store.results([run])


def test_a_server_that_is_away_for_a_moment_costs_nothing(own_mlflow: MlflowServer) -> None:
    import threading

    store = open_store(own_mlflow.url)
    experiment = store.ensure_experiment("tip-bench-away-a-moment")
    own_mlflow.stop()
    back = threading.Timer(2.0, own_mlflow.start)
    back.start()
    parent = store.begin_collection(experiment, "col", [], {}, {})
    store.save_cell(experiment, parent.run_id, cell(), None)
    back.join()
    assert len(store.cells(experiment)) == 1


def test_a_server_that_stays_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIPBENCH_MLFLOW_RETRY_S", "0.5")
    store = open_store("http://user:secret@127.0.0.1:9")
    with pytest.raises(StoreUnreachable, match=r"MLflow at http://127\.0\.0\.1:9 cannot be reached") as caught:
        store.experiments()
    assert caught.value.exit_code == 5 and "secret" not in str(caught.value)


def test_a_server_that_is_not_mlflow_is_called_so(mlflow_url: str) -> None:
    store = open_store(mlflow_url + "/nowhere")
    with pytest.raises(StoreError, match="URL"):
        store.ensure_experiment("tip-bench-x")


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="http"):
        open_store("databricks://profile")
