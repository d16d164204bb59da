"""What came out: the leaderboard in every rendering, two of them side by side, and how far the judges agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from tipbench.api.models import Agreement, AlphaBody, ComparedCell, Comparison
from tipbench.api.problems import Problem, documented, invalid
from tipbench.api.routes.common import Api, Experiment, Judges, References
from tipbench.api.service import Board, plain
from tipbench.config import EXPERIMENT_PATTERN
from tipbench.errors import InputError
from tipbench.leaderboard.gate import GateCell
from tipbench.leaderboard.model import Cell, Leaderboard
from tipbench.leaderboard.options import BoardOptions

router = APIRouter(prefix="/api/bench", tags=["results"])
MEDIA = {
    "json": "application/json",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
}
Verdict = Literal["better", "worse", "could be chance", "unknown"]
REPORT_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""The report is one file with its styles in it, and with tips that models wrote; nothing in it may run."""


@router.get(
    "/leaderboard/{experiment}",
    response_model=None,
    responses={
        200: {
            "description": "The leaderboard",
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/Leaderboard"},
                            {
                                "type": "object",
                                "description": "tipbench.leaderboard/1, with schema=1",
                                "required": ["schema"],
                                "properties": {"schema": {"const": "tipbench.leaderboard/1"}},
                            },
                        ]
                    }
                },
                **{MEDIA[f]: {"schema": {"type": "string"}} for f in ("md", "csv", "html")},
            },
        },
        304: {"description": "Nothing has changed since the ETag that was sent"},
        **documented(401, 404, 406, 422, 502, 503),
    },
)
async def leaderboard(
    experiment: Annotated[
        str,
        Path(
            pattern=EXPERIMENT_PATTERN,
            description="an experiment's name; .json, .md, .csv or .html after it chooses the rendering",
            examples=["tip-bench-auto"],
        ),
    ],
    request: Request,
    api: Api,
    judges: Judges = None,
    versions: Annotated[
        Literal["current", "all"],
        Query(description="all: older versions of models, prompts and scenarios as rows, too"),
    ] = "current",
    reference: References = None,
    margin: Annotated[
        float,
        Query(ge=0, le=100, description="points behind the best that are still good enough; 0: 7.5 % of the range"),
    ] = 0.0,
    prefer: Annotated[Literal["memory", "speed"], Query(description="what makes a good enough cell cheap")] = "memory",
    schema: Annotated[Literal["1", "2"], Query(description="version of the JSON")] = "2",
    format: Annotated[
        Literal["json", "md", "csv", "html"] | None, Query(description="wins over suffix and Accept")
    ] = None,
    download: Annotated[bool, Query(description="as an attachment with a name")] = False,
) -> Response:
    """Rank an experiment's (model, prompt) cells, with error bars. `Cache-Control: no-cache` computes it anew."""
    kind: str | None = format
    if kind is None:
        stem, dot, suffix = experiment.rpartition(".")
        if dot and suffix in MEDIA and len(stem) > len("tip-bench-"):
            experiment, kind = stem, suffix
    kind = kind or _accepted(request.headers.get("Accept", "*/*"))
    fresh = request.headers.get("Cache-Control") == "no-cache"
    options = BoardOptions(
        judges=_named(judges), references=tuple(reference or ()), margin=margin, prefer=prefer, versions=versions
    )
    board = await api.board(experiment, options, fresh=fresh)
    rendering = "json1" if kind == "json" and schema == "1" else kind
    headers = _validators(board, rendering)
    if kind == "html":
        headers["Content-Security-Policy"] = REPORT_CSP
    if download:
        headers["Content-Disposition"] = f'attachment; filename="{experiment}.{kind}"'
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(await api.rendering(board, rendering), media_type=MEDIA[kind], headers=headers)


def _named(judges: Sequence[str] | None) -> tuple[str, ...]:
    """The judges in one order, whichever way they were asked for: the board is the same."""
    return tuple(sorted(judges or ()))


def _accepted(header: str) -> str:
    """The rendering that Accept likes best; a browser that would take anything gets JSON, as machines do."""
    best, found = 0.0, ""
    for part in header.split(","):
        media, *parameters = (p.strip() for p in part.split(";"))
        try:
            q = next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        except ValueError:
            q = 0.0
        kind = {v: k for k, v in MEDIA.items()}.get(media, "json" if media in ("*/*", "application/*") else "")
        if kind and q > best:
            best, found = q, kind
    if not found:
        raise Problem(406, f"There is no such rendering; there are {', '.join(MEDIA.values())}.")
    return found


def _validators(board: Board, kind: str) -> dict[str, str]:
    return {
        "ETag": f'"{board.etag}-{kind}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept, Cookie, Authorization",
    }


@router.get(
    "/leaderboard/{experiment}/{plot}.svg",
    response_model=None,
    responses={
        200: {"description": "The figure", "content": {"image/svg+xml": {"schema": {"type": "string"}}}},
        204: {"description": "Nothing is judged yet, or no cost is known: there is nothing to draw"},
        304: {"description": "Nothing has changed since the ETag that was sent"},
        **documented(401, 404, 422, 502, 503),
    },
)
async def plot(
    experiment: Experiment,
    plot: Literal["forest", "tradeoff", "race"],
    request: Request,
    api: Api,
    judges: Judges = None,
    reference: References = None,
    narrow: Annotated[bool, Query(description="tradeoff: its two parts one above the other")] = False,
) -> Response:
    """The leaderboard's figures as SVG that follows the colour of the page it is put into."""
    board = await api.board(experiment, BoardOptions(judges=_named(judges), references=tuple(reference or ())))
    kind = "tradeoff-narrow" if narrow and plot == "tradeoff" else plot
    headers = _validators(board, kind)
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    svg = await api.rendering(board, kind)
    return Response(svg, media_type="image/svg+xml", headers=headers) if svg else Response(status_code=204)


@router.get("/compare", responses=documented(401, 404, 422, 502, 503))
async def compare(
    left: Annotated[str, Query(pattern=EXPERIMENT_PATTERN)],
    right: Annotated[str, Query(pattern=EXPERIMENT_PATTERN)],
    api: Api,
) -> Comparison:
    """Two experiments' leaderboards side by side, cell by cell; what changed is what `tipbench compare --against` says."""
    from tipbench.stages import gate as stage

    if left == right:
        raise invalid("1 fault in the request", ("right", "is the same experiment as left"))
    one, other = (await api.board(left)).leaderboard, (await api.board(right)).leaderboard
    cells: dict[tuple[str, str, str], list[Cell | None]] = {}
    for side, board in enumerate((one, other)):
        for cell in board.cells:
            cells.setdefault((cell.model, cell.prompt, cell.variant), [None, None])[side] = cell
    cautions = _cautions(one, other)
    paired: dict[tuple[str, str, str], GateCell] = {}
    try:
        rubric = api.rubric()
        margin = rubric.margin(api.settings.config.margin)
        gate = await api.at_work(stage.run, right, left, api.store, rubric, margin=margin)
        paired = {(c.model, c.prompt, c.variant): c for c in gate.cells}
        cautions += gate.warnings
    except InputError as error:
        cautions.append(f"The cells cannot be paired: {error}")
    return Comparison(
        left=left,
        right=right,
        scale_min=min(one.scale_min, other.scale_min),
        scale_max=max(one.scale_max, other.scale_max),
        warnings=tuple(cautions),
        cells=tuple(_compared(key, pair[0], pair[1], paired.get(key)) for key, pair in cells.items()),
    )


def _cautions(left: Leaderboard, right: Leaderboard) -> list[str]:
    found = []
    if left.rubric_hash != right.rubric_hash:
        found.append("The two were scored under different rubrics.")
    if {j.name for j in left.judges} != {j.name for j in right.judges}:
        found.append("The two have different judges; one judge may be more lenient than another.")
    if left.weights != right.weights:
        found.append("The criteria are weighted differently.")
    for what in ("config.temperature", "config.seed", "config.num_predict", "config.n_tips"):
        if left.receipt.get(what) != right.receipt.get(what):
            found.append(f"They were collected with different {what.removeprefix('config.')}.")
    return found


def _compared(
    key: tuple[str, str, str], left: Cell | None, right: Cell | None, paired: GateCell | None
) -> ComparedCell:
    difference = ratio = None
    if left and right and left.composite is not None and right.composite is not None:
        difference = right.composite - left.composite
    if left and right and left.seconds_per_tip and right.seconds_per_tip:
        ratio = right.seconds_per_tip / left.seconds_per_tip
    verdict: Verdict | None = None if difference is None else "unknown"
    low = high = None
    if paired is not None and paired.difference is not None:
        difference, low, high = paired.difference, paired.low, paired.high
        if low is not None:
            verdict = {"better": "better", "worse": "worse"}.get(paired.standing, "could be chance")  # type: ignore[assignment]
    return ComparedCell(
        model=key[0],
        prompt=key[1],
        variant=key[2],
        left=left,
        right=right,
        difference=difference,
        low=low,
        high=high,
        half_width=None if low is None or high is None else (high - low) / 2,
        n_scenarios=paired.n_scenarios if paired is not None else 0,
        verdict=verdict,
        seconds_ratio=ratio,
    )


@router.get("/agreement/{experiment}", responses=documented(401, 404, 422, 502, 503))
async def agreement(experiment: Experiment, api: Api) -> Agreement:
    """How far the judges agree, with each other and with themselves."""
    from tipbench.judging.agreement import WEAK_ALPHA, is_weak
    from tipbench.stages import agreement as stage

    await api.experiment_id(experiment)
    result = await api.at_work(stage.run, experiment, api.store, api.rubric())
    return Agreement(
        **plain(result) | {"alpha": [AlphaBody(**plain(a), weak=is_weak(a)) for a in result.alpha]},
        weak_below=WEAK_ALPHA,
    )
