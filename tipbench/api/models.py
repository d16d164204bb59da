"""The bodies that cross the API's border, each with an example. Times of day are ISO 8601 in UTC; a figure that is not known is null."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from tipbench.config import EXPERIMENT_PATTERN, json_schema
from tipbench.judging.exchange import JUDGE, ExchangeRubric, ItemId, JudgeIdentity
from tipbench.leaderboard.model import Cell
from tipbench.memory.meter import Source
from tipbench.pipeline import SMALLEST_SAMPLE

JUDGE_MODES = ("manual", "llm", "baseline", "skip")
JUDGE_KEYS: dict[str, dict[str, Any]] = {
    "judge": {
        "type": "string",
        "enum": list(JUDGE_MODES),
        "default": "manual",
        "description": "Who scores: people or agents (the run waits for them), an LLM, the baseline judge, or nobody.",
    },
    "judge_model": {
        "type": "string",
        "default": "",
        "pattern": r"^((ollama|openai|embedded):\S{1,70})?$",
        "description": "For judge=llm: ollama:MODEL, openai:MODEL, or (on this machine) embedded:MODEL.",
    },
    "judge_parallel": {
        "type": "string",
        "default": "",
        "pattern": r"^([1-9]|[1-5][0-9]|6[0-4])?$",
        "description": "For judge=llm: tips in question at once, 1 to 64. Empty: 8 for openai, as many as Ollama has slots.",
    },
    "judge_rationale": {
        "type": "string",
        "enum": ["before", "after", "none"],
        "default": "before",
        "description": "For judge=llm: where it writes its sentence of reason. It is most of the tokens.",
    },
    "judge_timeout_hours": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 8760,
        "default": 168,
        "description": "For judge=manual, or a sample: how long the run waits for scores before it fails.",
    },
    "reference": {
        "type": "string",
        "default": "",
        "pattern": rf"^({JUDGE}(\s*,\s*{JUDGE})*)?$",
        "description": "Judges, comma-separated: the board says what they would say of everything, from their scores on a part.",
    },
    "sample": {
        "type": "integer",
        "minimum": 0,
        "maximum": 400,
        "default": 0,
        "description": "For judge=llm: scenarios, drawn at random, that the reference judges score; the run waits for them. 0: none.",
    },
    "sample_tips": {
        "type": "integer",
        "minimum": 0,
        "maximum": 200,
        "default": 0,
        "description": "With a sample: tips of each cell, drawn at random. 0: all.",
    },
    "collect_memory": {
        "type": "string",
        "default": "256Mi",
        "pattern": r"^[0-9]+[KMG]i(\s*,\s*[^\s,=]+=[0-9]+[KMG]i)*$",
        "description": "On a cluster: memory of a collect pod; for one model another: 256Mi,llama3.2:3b=512Mi.",
    },
}
"""What a run takes beyond the configuration: the DAG's own parameters."""

Experiment = Annotated[str, Field(pattern=EXPERIMENT_PATTERN, examples=["tip-bench-auto"])]
RunState = Literal["queued", "running", "waiting", "success", "failed", "cancelled"]
TaskState = Literal["pending", "running", "waiting", "success", "failed", "skipped"]


def run_schema() -> dict[str, Any]:
    """JSON schema of what starts a run: the configuration's keys and the judge's."""
    schema = json_schema()
    properties = {k: v for k, v in schema["properties"].items() if k not in SERVER_KEYS}
    return {**schema, "title": "tipbench run", "properties": properties | JUDGE_KEYS}


SERVER_KEYS = frozenset({"scenarios", "prompts_dir", "rubric", "spool", "notify_url"})
"""Keys that name files on the server, or an address that is a secret: they are set where the API is started, never by a request."""


class Body(BaseModel):
    """Base of every body: unknown fields are errors, not noise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -- errors --------------------------------------------------------------------------------------


class Fault(Body):
    """One thing that is wrong with a request, and where."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name", examples=["/n_tips"])
    detail: str = Field(examples=["0 is too small; it must be at least 1"])


class ProblemBody(Body):
    """An error, as RFC 9457 has it (application/problem+json)."""

    type: str = Field(examples=["urn:tipbench:problem:invalid"])
    title: str = Field(examples=["The request is not valid"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["body: 1 fault"])
    instance: str = Field(description="the request's id, which is also in the log", examples=["urn:uuid:7d1f…"])
    errors: tuple[Fault, ...] = ()


# -- who is there --------------------------------------------------------------------------------


class Login(Body):
    """An admin token, exchanged for a session cookie."""

    token: str = Field(min_length=1, max_length=512, examples=["the admin token"])


class Me(Body):
    """Who the caller is. `csrf_token` goes into the header X-CSRF-Token of every change made with a session."""

    name: str = Field(description="the token's name", examples=["token"])
    user: str | None = Field(default=None, description="who stands behind it, when a trusted proxy says so")
    method: Literal["session", "bearer"]
    csrf_token: str | None = None
    expires_at: datetime | None = None
    version: str = Field(examples=["0.3.0"])
    back_end: Literal["airflow", "local"]


# -- experiments and their runs ------------------------------------------------------------------


class ExperimentSummary(Body):
    """One experiment at a glance. A cell is a (model, prompt, scenario); counts are cells unless they say otherwise."""

    name: str = Field(examples=["tip-bench-auto"])
    experiment_id: str = Field(examples=["1"])
    cells: int = Field(description="finished and failed", examples=[24])
    failed: int = Field(examples=[0])
    pending: int = Field(description="finished cells in which some tip has no score", examples=[8])
    judged: int = Field(description="finished cells in which every tip has a score", examples=[16])
    superseded: int = Field(default=0, description="cells of older versions of a model, prompt or scenario")
    twins: int = Field(default=0, description="cells that were collected twice; the other one counts")
    tips: int = Field(examples=[120])
    models: tuple[str, ...] = Field(examples=[["qwen2.5:0.5b", "gemma3:1b"]])
    prompts: tuple[str, ...] = Field(examples=[["v1", "v2-mentor"]])
    judges: tuple[str, ...] = Field(examples=[["ada"]])
    last_activity: datetime | None
    mlflow_url: str | None = Field(description="where a browser finds it in MLflow")


class Experiments(Body):
    """All `tip-bench-*` experiments, most recently active first."""

    experiments: tuple[ExperimentSummary, ...]


class RunRow(Body):
    """One cell's run in MLflow."""

    run_id: str
    model: str
    prompt: str
    scenario: str
    status: Literal["finished", "failed"]
    standing: Literal["counted", "failed", "superseded", "twin"] = Field(
        default="counted", description="does it stand on the board, and if not, why"
    )
    pending: bool = Field(description="some tip of it still lacks a score")
    n_tips: int
    n_candidates: int
    judges: tuple[str, ...]
    scores: dict[str, float] = Field(description="criterion -> mean over judges and tips")
    failure: str | None = Field(default=None, description="reason and message")
    tokens_per_s: float | None
    ttft_s: float | None
    wall_s: float | None
    peak_memory_bytes: int | None
    memory_source: Source | None = Field(default=None, description="where that figure comes from")
    started_at: datetime
    ended_at: datetime | None
    mlflow_url: str | None


class RunPage(Body):
    """One page of an experiment's runs, oldest first."""

    experiment: str
    runs: tuple[RunRow, ...]
    next_page_token: str | None = Field(description="hand it back as page_token; null on the last page")


class TipScore(Body):
    """One judge's scores of one tip."""

    judge: str
    kind: Literal["human", "agent", "llm", "baseline"]
    scores: dict[str, int]
    repeat: dict[str, int] | None = Field(default=None, description="scores when it was shown a second time")


class Tip(Body):
    """One candidate with what it cost and what it was given."""

    index: int
    text: str
    words: int
    done_reason: str | None
    tokens_per_s: float | None
    ttft_s: float | None
    scores: tuple[TipScore, ...]
    mean: dict[str, float] | None = Field(description="criterion -> mean over judges; null while unscored")


class TipGroup(Body):
    """The tips of one cell and scenario."""

    scenario: str
    situation: str
    run_id: str
    failure: str | None
    tips: tuple[Tip, ...]
    mlflow_url: str | None


class Tips(Body):
    """What one model wrote with one prompt, scenario by scenario."""

    experiment: str
    model: str
    prompt: str
    criteria: tuple[str, ...]
    groups: tuple[TipGroup, ...]


# -- collecting ----------------------------------------------------------------------------------


class RunRequest(RootModel[dict[str, Any]]):
    """The configuration object of a run: the keys of `tipbench collect`, and the judge's. Keys left out have their defaults."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "experiment": "tip-bench-auto",
                    "models": "qwen2.5:0.5b,gemma3:1b",
                    "prompts": "v1,v2-mentor",
                    "n_scenarios": 2,
                    "n_tips": 3,
                    "judge": "manual",
                }
            ]
        }
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = run_schema()
        schema.pop("$schema")
        return {**schema, "description": cls.__doc__, **(cls.model_config["json_schema_extra"] or {})}  # type: ignore[dict-item]


class RunStarted(Body):
    """A run that was accepted. A repeated Idempotency-Key answers with the run that it started first, and `created` false."""

    id: str = Field(examples=["api__2026-11-24T20.50.00__9f86d081"])
    created: bool
    experiment: str
    url: str = Field(description="the run in this API", examples=["/api/bench/dag-runs/api__…"])
    airflow_url: str | None


class TaskBody(Body):
    """One task of a run; a mapped one (`collect`) stands once for each model."""

    task: str = Field(examples=["collect"])
    map_index: int | None = Field(default=None, examples=[0])
    label: str = Field(description="what to call it: the model of a mapped task, else the task", examples=["gemma3:1b"])
    state: TaskState
    raw_state: str | None = Field(description="the back end's own word", examples=["deferred"])
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = Field(default=None, description="why it failed, in words")
    url: str | None = Field(default=None, description="the task's log in Airflow")


class ModelProgress(Body):
    """How far one model is; counts are cells."""

    model: str
    planned: int
    finished: int
    failed: int
    failures: dict[str, int] = Field(default_factory=dict, description="reason -> cells")
    refused: str | None = Field(default=None, description="why the RAM policy turned it away")


class Progress(Body):
    """How far the whole collection is. Cells that an earlier run had filled count as finished."""

    planned: int
    finished: int
    failed: int
    pending: int = Field(description="finished cells with tips that nobody has scored")
    eta_s: float | None = Field(description="seconds until the last cell, at the pace so far")
    models: tuple[ModelProgress, ...]


class RaceState(Body):
    """How far an experiment in rounds is; blind: it tells nothing of which cell is ahead."""

    round: int = Field(description="the round under way, from 1; the last one when all are over")
    rounds: int = Field(description="how many there are at most")
    looks_taken: int
    tips: int = Field(description="tips of this round, of the cells that are in")
    judged: int = Field(description="of them judged")
    over: bool = Field(description="the decision is made: whoever judges can stop")


class RoundLink(Body):
    """One run of a chain."""

    id: str
    round: int
    state: RunState


class DagRun(Body):
    """One run of the pipeline. `waiting` means: for a judge."""

    id: str
    chain: str = Field(description="with until = sure: the first run of the chain; else the run itself")
    round: int = Field(default=1, description="the run's place in its chain; with until = all, 1")
    experiment: str
    state: RunState
    started_by: str | None = None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    config: dict[str, Any]
    judge: str
    airflow_url: str | None
    mlflow_url: str | None


class DagRuns(Body):
    """The latest runs, newest first."""

    dag_runs: tuple[DagRun, ...]
    total: int


class DagRunDetail(DagRun):
    """One run with its tasks, its progress and, when it failed, why."""

    tasks: tuple[TaskBody, ...]
    progress: Progress | None = Field(description="null while MLflow is away")
    reason: str | None = Field(description="why it failed, in words")
    degraded: str | None = Field(default=None, description="what could not be read just now, and why")
    chain_runs: tuple[RoundLink, ...] = Field(
        default=(), description="with until = sure: all runs of the chain, by round"
    )
    race: RaceState | None = Field(default=None, description="with until = sure: how far the decision is")


class ModelRowBody(Body):
    """One model: what it needs, and what the RAM policy says."""

    model: str
    installed: bool
    configured: bool
    parameters: int | None
    quantization: str | None
    size_bytes: int | None
    estimated_memory_bytes: int | None
    allowed: bool
    verdict: str = Field(examples=["allowed"])
    max_num_ctx: int | None = Field(
        default=None,
        description="the largest num_ctx with which it fits into memory_limit, 0 for none; null without a limit",
    )


class Models(Body):
    """The engine's models. Without an engine, what the tags alone tell, and why there is no more."""

    available: bool
    problem: str | None
    memory_limit_bytes: int | None
    max_model_b: float
    models: tuple[ModelRowBody, ...]


class ModelEstimate(Body):
    """How long one model will take."""

    model: str
    tips: int
    seconds_per_tip: float | None
    seconds: float | None
    measured_on: str | None = Field(description="the experiment that the pace is from; null when there is none")


class Estimate(Body):
    """How long a collection will take, from the pace of earlier runs."""

    cells: int = Field(description="runs in MLflow: models x prompts x scenarios")
    tips: int
    seconds: float | None = Field(description="null when no model of it was ever measured")
    complete: bool = Field(description="every model of it was measured before")
    models: tuple[ModelEstimate, ...]


class PromptInfo(Body):
    """A prompt version that can be asked for, or one whose file is faulty."""

    name: str
    description: str
    problem: str | None = Field(
        None, description="what is wrong with its file, by line and field; a run with it is refused"
    )


class ScenarioInfo(Body):
    """A scenario of the catalog."""

    id: str
    title: str


class FormSchema(Body):
    """Everything that a form needs: the schema that POST /api/bench/run checks against, and what can be chosen from."""

    schema_: dict[str, Any] = Field(alias="schema", description="JSON schema 2020-12")
    defaults: dict[str, Any] = Field(description="this server's defaults")
    prompts: tuple[PromptInfo, ...]
    scenarios: tuple[ScenarioInfo, ...]
    back_end: Literal["airflow", "local"]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class RubricInForce(Body):
    """The rubric that tips are scored by on this server."""

    rubric: ExchangeRubric
    rubric_hash: str
    instructions: str


# -- comparing -----------------------------------------------------------------------------------


class ComparedCell(Body):
    """One (model, prompt) in two experiments; null where it is in one only."""

    model: str
    prompt: str
    variant: str = ""
    left: Cell | None
    right: Cell | None
    difference: float | None = Field(
        description="right minus left; paired by scenario and judge where both were judged by the same, else of the composites"
    )
    low: float | None = Field(default=None, description="one-sided 95% lower limit that holds for all cells at once")
    high: float | None = Field(default=None, description="one-sided 95% upper limit that holds for all cells at once")
    half_width: float | None = Field(description="half the distance of the two limits")
    n_scenarios: int = Field(default=0, description="scenarios in which the same judge scored both")
    verdict: Literal["better", "worse", "could be chance", "unknown"] | None = Field(
        description="of the right one; unknown where no limits can be had, null without a difference"
    )
    seconds_ratio: float | None = Field(description="right over left seconds per tip")


class Comparison(Body):
    """Two leaderboards side by side."""

    left: str
    right: str
    scale_min: int = Field(description="of the scale that holds both")
    scale_max: int
    warnings: tuple[str, ...] = Field(description="why the two may not be comparable")
    cells: tuple[ComparedCell, ...]


class Imported(Body):
    """What came of an imported table; in a dry run, what would."""

    experiment: str
    source: str
    dry_run: bool
    rows: int
    cells: int
    new_candidates: int
    known_candidates: int
    new_scores: int = Field(description="candidates that a judge had not scored before")
    changed_scores: int
    unchanged_scores: int
    judges: tuple[str, ...]
    wall_s: float


class AlphaBody(Body):
    """Krippendorff's ordinal alpha of one criterion."""

    criterion: str
    alpha: float | None
    ci_low: float | None
    ci_high: float | None
    n_units: int
    weak: bool


class KappaBody(Body):
    """Quadratic-weighted kappa of two judges."""

    judge_a: str
    judge_b: str
    criterion: str
    kappa: float | None
    n: int


class LeniencyBody(Body):
    """A judge's mean difference from the others, in points."""

    judge: str
    mean_difference: float | None
    n: int


class ConsistencyBody(Body):
    """How far a judge repeats itself on tips shown twice."""

    judge: str
    exact: float | None
    mean_abs_difference: float | None
    n: int


class AltTestBody(Body):
    """The alternative annotator test, clustered by scenario; `refused` says why there is no answer."""

    refused: str
    people: int
    items: int
    winning_rate: float | None
    advantage: float | None
    passes: bool | None


class ReplacementBody(Body):
    """May this judge, which is no person, replace the people who scored?"""

    judge: str
    criterion: str
    test: AltTestBody


class Agreement(Body):
    """How far the judges agree; empty lists where it takes two judges."""

    experiment: str
    judges: tuple[str, ...]
    alpha: tuple[AlphaBody, ...]
    kappa: tuple[KappaBody, ...]
    leniency: tuple[LeniencyBody, ...]
    consistency: tuple[ConsistencyBody, ...]
    replacement: tuple[ReplacementBody, ...] = ()
    weak_below: float


# -- judging -------------------------------------------------------------------------------------


class JudgingItem(Body):
    """One tip to score, blind. `scores` is null, or what this judge gave before."""

    id: ItemId
    export_id: str = Field(description="hand it back with the scores")
    scenario: str
    tip: str
    scores: dict[str, int] | None = None


class JudgingProgress(Body):
    """How far the judging is; counts are items: tips, and this judge's hidden repeats. total = done + left + others."""

    total: int = Field(description="all tips, hidden repeats included; judging does not move it")
    done: int = Field(description="of them scored by this judge")
    left: int = Field(description="still to be handed out to this judge in this scope")
    others: int = Field(description="scored by others only, and not this judge's to score in this scope")
    pending: int = Field(description="tips that nobody has scored; at 0 a waiting run goes on")


class SampleRequest(Body):
    """A sample to be drawn: for judges who score a part, so that another judge's scores of everything can be corrected."""

    scenarios: Annotated[
        int,
        Field(
            ge=SMALLEST_SAMPLE,
            le=400,
            description=f"drawn at random; {SMALLEST_SAMPLE} are the least that an estimate takes",
        ),
    ]
    tips: Annotated[int, Field(ge=0, le=200, description="of each cell, drawn at random; 0 for all")] = 0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class SampleBody(Body):
    """A sample that people were asked for."""

    scenarios: int
    tips: int = Field(description="of each cell; 0 for all")
    seed: int
    n_tips: int = Field(description="tips in it")
    left: dict[str, int] = Field(
        description="judge -> tips of it that this judge has not scored; judges who have not begun are not named"
    )


class SampleState(Body):
    """What can be drawn from, and what people were asked for under the rubric in force."""

    n_scenarios: int = Field(description="scenarios on the board")
    least: int = Field(description="scenarios of a sample, at least")
    sample: SampleBody | None


class SamplePlanBody(Body):
    """What a person's scores of a sample would detect, as `tipbench plan` works it out; differences in points of the scale."""

    scenarios: int = Field(description="in the sample")
    n_scenarios: int = Field(description="on the board")
    n_cells: int
    n_tips: int = Field(description="tips that each person scores")
    power: float = Field(description="chance of detecting such a difference")
    difference: float | None = Field(
        description="smallest detectable difference from the best, with another judge's scores of everything; null with one cell"
    )
    alone: float | None = Field(description="the same from the person's scores alone")
    spreads: str = Field(description="where the spreads of scores come from")
    words: str


class JudgingNext(Body):
    """The next items for a judge, the rubric to score them by, and the ones scored last, for going back."""

    experiment: str
    judge: str
    items: tuple[JudgingItem, ...] = Field(description="empty when nothing is left in this scope")
    previous: tuple[JudgingItem, ...]
    progress: JudgingProgress
    race: RaceState | None = Field(default=None, description="in rounds: how far the decision is")
    instructions: str
    rubric: ExchangeRubric
    rubric_hash: str


class JudgingScore(Body):
    """One judge's scores of one item; every criterion, whole numbers on the rubric's scale."""

    export_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    judge: JudgeIdentity
    scores: dict[str, Annotated[int, Field(strict=True)]]
    rationale: str | None = Field(default=None, max_length=2000)
    reason: str = Field(default="", max_length=500, description="why a score changed; kept in its history")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "export_id": "0123456789abcdef",
                    "judge": {"name": "ada", "kind": "human"},
                    "scores": {"relevance": 4, "actionability": 5, "tone": 4},
                }
            ]
        }
    )


class JudgingSaved(Body):
    """What became of one item: it is in MLflow when this is answered."""

    id: str
    outcome: Literal["new", "changed", "unchanged"]
    cell_pending: bool = Field(description="some other tip of the same cell has no score yet")


class Applied(Body):
    """What applying a file did, or would do; counts are items."""

    experiment: str
    judge: str | None
    dry_run: bool
    new: int
    changed: int
    unchanged: int
    unscored: int
    cells: int
    pending_cells: int
    judgment_run_id: str | None


# -- operations ----------------------------------------------------------------------------------


class Dependency(Body):
    """One service that the API leans on."""

    name: Literal["mlflow", "airflow"]
    ok: bool
    detail: str = Field(description="empty when it is well")


class Ready(Body):
    """Can the API do its work?"""

    ready: bool
    dependencies: tuple[Dependency, ...]


class Alive(Body):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str
