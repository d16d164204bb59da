"""Experiments, runs, tips, leaderboards and agreement, read from a real MLflow."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET

import pytest

from tests.integration.api.conftest import Server, apply_file, fill, opened, problem, scores_for

pytestmark = pytest.mark.integration
EXPERIMENT = "tip-bench-results"


@pytest.fixture(scope="module")
def judged(shared: Server, mlflow_server: object) -> Server:
    """Two models, of which a third one failed, judged by ada and in part by bob."""
    url = mlflow_server.url  # type: ignore[attr-defined]
    fill(url, EXPERIMENT, models=("small:1b", "tiny:1b", "bad:1b"), prompts=("v1", "v2-mentor"), failed=("bad:1b",))
    assert apply_file(shared.client, EXPERIMENT, "ada") >= 24
    assert apply_file(shared.client, EXPERIMENT, "bob", scores=lambda item: scores_for(item, 1)) >= 24
    return shared


def test_experiments_tell_their_state(judged: Server, mlflow_url: str) -> None:
    fill(mlflow_url, "tip-bench-unjudged", models=("small:1b",))
    found = {e["name"]: e for e in judged.client.get("/api/bench/experiments").json()["experiments"]}
    one = found[EXPERIMENT]
    assert (one["cells"], one["failed"], one["pending"], one["judged"], one["tips"]) == (18, 6, 0, 12, 24)
    assert sorted(one["models"]) == ["bad:1b", "small:1b", "tiny:1b"] and one["judges"] == ["ada", "bob"]
    assert one["mlflow_url"] == f"{mlflow_url}/#/experiments/{one['experiment_id']}"
    assert found["tip-bench-unjudged"]["pending"] == 3
    assert list(found).index("tip-bench-unjudged") < list(found).index(EXPERIMENT)


def test_runs_come_page_by_page_each_once(judged: Server) -> None:
    seen, token = [], None
    while True:
        page = judged.client.get(
            f"/api/bench/runs/{EXPERIMENT}", params={"limit": 5, **({"page_token": token} if token else {})}
        ).json()
        seen += [run["run_id"] for run in page["runs"]]
        token = page["next_page_token"]
        if not token:
            break
    assert len(seen) == len(set(seen)) == 18


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"model": "small:1b"}, 6),
        ({"model": "small:1b", "prompt": "v1"}, 3),
        ({"model": "small:1b", "scenario": "cannot-sleep"}, 2),
        ({"status": "failed"}, 6),
        ({"status": "finished"}, 12),
        ({"status": "judged"}, 12),
        ({"status": "pending"}, 0),
        ({"model": "none"}, 0),
    ],
)
def test_runs_are_filtered(judged: Server, wanted: dict[str, str], count: int) -> None:
    rows = judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params=wanted).json()["runs"]
    assert len(rows) == count
    for row in rows:
        assert all(row[name] == value for name, value in wanted.items() if name != "status")


def test_a_row_has_scores_costs_or_the_reason_of_its_failure(judged: Server) -> None:
    row = judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params={"status": "judged"}).json()["runs"][0]
    assert set(row["scores"]) == {"relevance", "actionability", "tone"} and row["judges"] == ["ada", "bob"]
    assert row["tokens_per_s"] > 0 and row["peak_memory_bytes"] and row["n_candidates"] == 2 and not row["pending"]
    bad = judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params={"model": "bad:1b"}).json()["runs"][0]
    assert bad["status"] == "failed" and bad["failure"] == "OutOfMemory: it did not fit"


def test_a_page_token_is_only_good_for_its_own_question(judged: Server) -> None:
    token = judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params={"limit": 2}).json()["next_page_token"]
    for params in ({"page_token": token, "model": "small:1b"}, {"page_token": token[:-1]}, {"page_token": "eyJ9"}):
        errors = problem(judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params=params), 422)["errors"]
        assert errors[0]["pointer"] == "page_token"


@pytest.mark.parametrize("name", ["small'1b", "a' OR '1'='1", "`x`", "a b"])
def test_a_name_that_would_break_out_of_mlflows_filter_is_refused(judged: Server, name: str) -> None:
    problem(judged.client.get(f"/api/bench/runs/{EXPERIMENT}", params={"model": name}), 422)


def test_tips_of_a_cell_stand_with_every_judges_scores(judged: Server) -> None:
    body = judged.client.get(f"/api/bench/tips/{EXPERIMENT}", params={"model": "small:1b", "prompt": "v1"}).json()
    assert [g["scenario"] for g in body["groups"]] == sorted(g["scenario"] for g in body["groups"])
    assert len(body["groups"]) == 3 and body["criteria"] == ["relevance", "actionability", "tone"]
    tip = body["groups"][0]["tips"][0]
    assert [s["judge"] for s in tip["scores"]] == ["ada", "bob"] and tip["text"].startswith("Tip 0")
    for criterion in body["criteria"]:
        assert tip["mean"][criterion] == sum(s["scores"][criterion] for s in tip["scores"]) / 2


def test_the_leaderboard_is_what_the_command_line_makes_in_every_rendering(judged: Server, mlflow_url: str) -> None:
    from tipbench.catalog import load_rubric
    from tipbench.stages import compare

    with opened(mlflow_url) as store:
        known = compare.rank(EXPERIMENT, store, load_rubric()).leaderboard
    base = f"/api/bench/leaderboard/{EXPERIMENT}"
    board = judged.client.get(base).json()
    assert board["schema"] == "tipbench.leaderboard/2"
    expected = known.model_dump(mode="json", by_alias=True) | {"created_at": board["created_at"]}
    assert board == expected
    rows = list(csv.DictReader(io.StringIO(judged.client.get(base + ".csv").text)))
    assert [(r["model"], r["prompt"]) for r in rows] == [(c["model"], c["prompt"]) for c in board["cells"]]
    assert judged.client.get(base, headers={"Accept": "text/markdown"}).text.startswith("# tip-bench-results")
    report = judged.client.get(base, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert report.headers["content-type"].startswith("text/html")
    assert (
        "sandbox" in report.headers["content-security-policy"]
        and "script-src" not in report.headers["content-security-policy"]
    )
    download = judged.client.get(base, params={"format": "csv", "download": True})
    assert download.headers["content-disposition"] == f'attachment; filename="{EXPERIMENT}.csv"'
    problem(judged.client.get(base, headers={"Accept": "application/pdf"}), 406)


def test_reading_a_leaderboard_writes_nothing(judged: Server, mlflow_url: str) -> None:
    judged.client.get(f"/api/bench/leaderboard/{EXPERIMENT}", headers={"Cache-Control": "no-cache"})
    with opened(mlflow_url) as store:
        found = store.find_experiment(EXPERIMENT)
        assert found is not None
        assert not list(store._runs(found, "leaderboard"))


def test_an_unchanged_leaderboard_answers_304_and_a_new_score_changes_its_etag(judged: Server, mlflow_url: str) -> None:
    experiment = "tip-bench-etag"
    fill(mlflow_url, experiment)
    base = f"/api/bench/leaderboard/{experiment}"
    first = judged.client.get(base)
    assert all(c["composite"] is None for c in first.json()["cells"])
    again = judged.client.get(base, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert judged.client.get(base + ".csv").headers["etag"] != first.headers["etag"]
    apply_file(judged.client, experiment, "ada")
    second = judged.client.get(base, headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200 and all(c["composite"] is not None for c in second.json()["cells"])
    fill(mlflow_url, experiment, models=("late:1b",))  # somebody else's collection, past this API
    import time

    time.sleep(1.1)
    third = judged.client.get(base)
    assert "late:1b" in {c["model"] for c in third.json()["cells"]}
    assert third.headers["etag"] != second.headers["etag"]


def test_the_leaderboard_of_one_judge(judged: Server) -> None:
    base = f"/api/bench/leaderboard/{EXPERIMENT}"
    one = judged.client.get(base, params={"judge": "bob"}).json()
    assert [j["name"] for j in one["judges"]] == ["bob"]
    problem(judged.client.get(base, params={"judge": "nobody"}), 422)


@pytest.mark.parametrize("plot", ["forest", "tradeoff"])
def test_plots_have_no_style_that_a_strict_policy_would_stop(judged: Server, plot: str) -> None:
    answer = judged.client.get(f"/api/bench/leaderboard/{EXPERIMENT}/{plot}.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    root = ET.fromstring(answer.text)
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert "style" not in tags and "script" not in tags
    assert not any("style" in element.attrib for element in root.iter())
    assert "currentColor" in answer.text and "small:1b" in answer.text
    assert re.search(r'<text [^>]*font-size="[\d.]+px"', answer.text)


def test_nothing_judged_is_nothing_to_draw(judged: Server, mlflow_url: str) -> None:
    fill(mlflow_url, "tip-bench-blank")
    assert judged.client.get("/api/bench/leaderboard/tip-bench-blank/forest.svg").status_code == 204
    problem(judged.client.get("/api/bench/leaderboard/tip-bench-blank/other.svg"), 422)


def test_agreement_is_told_with_a_warning_where_it_is_weak(judged: Server) -> None:
    body = judged.client.get(f"/api/bench/agreement/{EXPERIMENT}").json()
    assert body["judges"] == ["ada", "bob"] and len(body["alpha"]) == 3 and len(body["kappa"]) == 3
    assert all(a["weak"] == (a["alpha"] is not None and a["alpha"] < body["weak_below"]) for a in body["alpha"])
    assert {c["judge"] for c in body["consistency"]} == {"ada", "bob"}


def test_two_experiments_side_by_side(judged: Server, mlflow_url: str) -> None:
    other = "tip-bench-other"
    fill(mlflow_url, other, models=("small:1b", "new:1b"))
    apply_file(judged.client, other, "cy")
    body = judged.client.get("/api/bench/compare", params={"left": EXPERIMENT, "right": other}).json()
    cells = {(c["model"], c["prompt"]): c for c in body["cells"]}
    both = cells["small:1b", "v1"]
    assert both["difference"] == pytest.approx(both["right"]["composite"] - both["left"]["composite"])
    assert cells["new:1b", "v1"]["left"] is None and cells["tiny:1b", "v1"]["right"] is None
    assert any("judges" in w for w in body["warnings"])
    problem(judged.client.get("/api/bench/compare", params={"left": other, "right": other}), 422)
    problem(judged.client.get("/api/bench/compare", params={"left": other, "right": "tip-bench-never-was"}), 404)


def test_an_estimate_comes_from_what_earlier_runs_took(judged: Server) -> None:
    body = {
        "models": "small:1b,never-seen:1b",
        "prompts": "v1",
        "n_scenarios": 2,
        "n_tips": 3,
        "experiment": EXPERIMENT,
    }
    found = judged.client.post("/api/bench/estimate", json=body).json()
    assert (found["cells"], found["tips"], found["complete"]) == (4, 12, False)
    known, unknown = found["models"]
    assert known["seconds_per_tip"] == pytest.approx(0.7) and known["measured_on"] == EXPERIMENT
    assert known["seconds"] == pytest.approx(0.7 * 6) == found["seconds"]
    assert unknown["seconds"] is None and unknown["measured_on"] is None


def test_metrics_count_by_route_and_not_by_name(judged: Server) -> None:
    text = judged.client.get("/metrics").text
    assert 'tipbench_api_requests_total{method="GET",route="/api/bench/runs/{experiment}",status="200"}' in text
    assert EXPERIMENT not in text and "tipbench_api_scores_total" in text


def test_the_documentation_needs_no_script_and_no_internet(judged: Server) -> None:
    page = judged.client.get("/docs").text
    assert "<script" not in page and "style=" not in page and not re.search(r'(src|href)="([a-z]+:|//)', page)
    assert "/api/bench/judging/{experiment}/apply" in page


def test_a_table_goes_in_and_out_over_http(judged: Server) -> None:
    base = "/api/bench/tables/tip-bench-table"
    head = "model,prompt,scenario,text,situation,judge,judge_kind,relevance,actionability,tone"
    rows = [f"m{m},p,s{s},Tip {m} {s}.,Situation {s}.,ann,human,{2 + m},3,4" for m in range(2) for s in range(3)]
    content = "\n".join([head, *rows])
    csv = {"Content-Type": "text/csv"}
    answer = judged.client.post(f"{base}/import", params={"dry_run": True}, content=content, headers=csv)
    assert (answer.json()["new_candidates"], answer.json()["new_scores"]) == (6, 6)
    problem(judged.client.get(f"{base}/scores"), 404)
    faulty = judged.client.post(f"{base}/import", content=content.replace(",4", ",9", 1), headers=csv)
    assert "line 2, tone: '9' is outside the scale of 1 to 5" in faulty.text and faulty.status_code == 422
    assert judged.client.post(f"{base}/import", content=content, headers=csv).json()["new_candidates"] == 6
    again = judged.client.post(f"{base}/import", content=content, headers=csv).json()
    assert (again["new_candidates"], again["new_scores"], again["unchanged_scores"]) == (0, 0, 6)
    board = judged.client.get("/api/bench/leaderboard/tip-bench-table").json()
    assert [c["model"] for c in board["cells"]] == ["m1", "m0"]
    out = judged.client.get(f"{base}/scores", params={"format": "jsonl"})
    assert len(out.text.splitlines()) == 6 and out.headers["content-type"].startswith("application/x-ndjson")
    back = judged.client.post(
        f"{base}/import", content=out.text, headers={"Content-Type": "application/x-ndjson"}
    ).json()
    assert (back["new_candidates"], back["unchanged_scores"]) == (0, 6)


def test_two_experiments_with_the_same_judge_are_paired_as_the_gate_does(judged: Server) -> None:
    head = "model,prompt,scenario,text,judge,judge_kind,relevance,actionability,tone"
    for name, low in (("tip-bench-before", 4), ("tip-bench-after", 1)):
        rows = [f"m,p,s{s},Tip {s} {name}.,ann,human,{low + s % 2},{low},{low}" for s in range(8)]
        answer = judged.client.post(
            f"/api/bench/tables/{name}/import", content="\n".join([head, *rows]), headers={"Content-Type": "text/csv"}
        )
        assert answer.status_code == 200, answer.text
    body = judged.client.get(
        "/api/bench/compare", params={"left": "tip-bench-before", "right": "tip-bench-after"}
    ).json()
    (cell,) = body["cells"]
    assert cell["verdict"] == "worse" and cell["n_scenarios"] == 8 and cell["difference"] == pytest.approx(-3.0)
