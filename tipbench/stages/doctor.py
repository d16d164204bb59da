"""Doctor: is everything reachable and sane, and what to do if not?"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from tipbench import __version__
from tipbench.catalog import load_prompts, load_rubric, load_scenarios
from tipbench.config import KEYS, Config
from tipbench.engines import open_engine
from tipbench.errors import TipbenchError, UnreachableError
from tipbench.model_names import same_model
from tipbench.policy import check_memory, check_parameters, format_bytes, need, parse_bytes
from tipbench.store import open_store
from tipbench.store.journal import Journal

Status = Literal["ok", "warning", "failed", "unreachable"]
_MARKS = {"ok": "ok", "warning": "warn", "failed": "FAIL", "unreachable": "DOWN"}
_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "unreachable": "red"}
PATIENCE_S = 5.0
"""How long a server that is away is asked again: a doctor is asked for an answer now."""
LOW_DISK = 1024**3
"""Bytes free below which the spool's disk is worth a word."""


@dataclass(frozen=True)
class Check:
    """One thing looked at, what was found, and what to do about it ("" if nothing)."""

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class DoctorResult:
    """All checks, in the order in which a collection would need them."""

    checks: tuple[Check, ...]
    unreachable: bool
    failed: bool


def run(config: Config) -> DoctorResult:
    """Look at the catalog, the engine, the models, the store and the spool; never raises a TipbenchError itself."""
    checks: list[Check] = [Check("tipbench", "ok", f"version {__version__}")]
    for name, look in (
        ("catalog", _catalog),
        ("engine", _engine),
        ("mlflow", _store),
        ("spool", _spool),
    ):
        checks += _guarded(name, look, config)
    return DoctorResult(
        checks=tuple(checks),
        unreachable=any(c.status == "unreachable" for c in checks),
        failed=any(c.status == "failed" for c in checks),
    )


def _guarded(name: str, look: Callable[[Config], list[Check]], config: Config) -> list[Check]:
    """The checks of one area; an error of tipbench's own becomes a finding."""
    try:
        return look(config)
    except UnreachableError as error:
        return [Check(name, "unreachable", _plain(str(error)))]
    except TipbenchError as error:
        return [Check(name, "failed", _plain(str(error)))]


def _plain(text: str) -> str:
    """A message without the page that a proxy or a server pasted into it."""
    if not re.search(r"<(?:!doctype|html|head|body|title|h1)\b", text, re.IGNORECASE):
        return text
    title = re.search(r"<(title|h1)[^>]*>\s*(.*?)\s*</\1>", text, re.IGNORECASE | re.DOTALL)
    before = text[: text.index("<")].rstrip(" :")
    return f"{before}: an HTML page{f', {title[2]}' if title else ''}; is this the right address?"


def _catalog(config: Config) -> list[Check]:
    scenarios = load_scenarios(config.scenarios or None)
    prompts = load_prompts(config.prompt_list, config.prompts_dir or None, scenarios)
    rubric = load_rubric(config.rubric or None)
    criteria = ", ".join(c.id for c in rubric.criteria)
    return [
        Check(
            "catalog",
            "ok",
            f"{len(scenarios)} scenarios, prompts {', '.join(p.name for p in prompts)}, rubric {rubric.name} ({criteria})",
        )
    ]


def _engine(config: Config) -> list[Check]:
    checks = []
    with contextlib.closing(open_engine(config, patience_s=PATIENCE_S)) as engine:
        info = engine.info()
        where = f" at {info.url}" if info.url else ""
        checks.append(Check("engine", "ok", f"{info.name} {info.version or ''}{where}".strip()))
        installed = engine.models()
        limit = parse_bytes(config.memory_limit)
        for model in config.model_list:
            facts = next((one for one in installed if same_model(one.name, model)), None)
            if facts is None:
                remedy = (
                    f"ollama pull {model}, or collect with --pull"
                    if config.engine == "ollama"
                    else "see tipbench models"
                )
                checks.append(Check(f"model {model}", "failed", "the engine does not have it", remedy))
                continue
            if facts.problem:
                checks.append(Check(f"model {model}", "failed", facts.problem))
                continue
            verdict = check_parameters(model, facts.parameters, config.max_model_b)
            estimate = need(facts, config.num_ctx, config.parallel, config.engine)
            if verdict.allowed:
                verdict = check_memory(model, estimate, limit)
            if verdict.allowed:
                words = f", needs about {format_bytes(estimate.total)}" if estimate else ""
                checks.append(Check(f"model {model}", "ok", f"{(facts.parameters or 0) / 1e9:.2f} B parameters{words}"))
            else:
                checks.append(Check(f"model {model}", "warning", f"the policy refuses it: {verdict.reason}"))
        loaded = engine.resident()
        if len(loaded) > 1:
            names = ", ".join(r.name for r in loaded)
            checks.append(
                Check(
                    "memory",
                    "warning",
                    f"several models are loaded: {names}",
                    "set OLLAMA_MAX_LOADED_MODELS=1 on the server",
                )
            )
    return checks


def _store(config: Config) -> list[Check]:
    with contextlib.closing(open_store(config.store_url, retry_s=PATIENCE_S, read_s=4 * PATIENCE_S)) as store:
        names = sorted(e.name for e in store.experiments())
    found = f"{store.where}: {len(names)} experiment{'s' * (len(names) != 1)}"
    if config.experiment in names:
        return [Check("mlflow", "ok", f"{found}; {config.experiment} is there")]
    shown = f" ({', '.join(names[:5])}{', …' * (len(names) > 5)})" if names else ""
    if config.experiment == KEYS["experiment"].default:
        # Nobody named it, so that it may not be the one that is meant.
        return [Check("mlflow", "ok", f"{found}{shown}; without --experiment, collect makes {config.experiment}")]
    return [Check("mlflow", "ok", f"{found}{shown}; {config.experiment} is new, collect makes it")]


def _spool(config: Config) -> list[Check]:
    with contextlib.closing(open_store(config.store_url, retry_s=PATIENCE_S)) as store:
        journal = Journal(config.spool, store.where, config.experiment)
    free = shutil.disk_usage(Path(journal.folder)).free
    left = len(journal)
    found = f"{journal.folder}: {format_bytes(free)} free"
    if left:
        return [
            Check(
                "spool", "warning", f"{found}; {left} cells wait for MLflow", "run the same collect again to save them"
            )
        ]
    if free < LOW_DISK:
        return [Check("spool", "warning", found, "free some space, or name another folder with --spool")]
    return [Check("spool", "ok", found)]


def render(result: DoctorResult, console: Console) -> None:
    """One line per check, the remedy under it."""
    width = max(len(c.name) for c in result.checks)
    for check in result.checks:
        style = _STYLES[check.status]
        console.print(
            f"[{style}]{_MARKS[check.status]:<5}[/{style}] {escape(check.name):<{width}}  {escape(check.found)}"
        )
        if check.remedy:
            console.print(f"      {'':<{width}}  -> {escape(check.remedy)}")
