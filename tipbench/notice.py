"""A notice to people: one POST to an address of theirs, when a judge is wanted or a board is ready. It never stops anything.

The body is JSON with a `text`, which is what the incoming webhooks of chat tools show; the other fields say the same to programs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from tipbench import __version__
from tipbench.errors import InputError
from tipbench.net.address import read_address, revealed
from tipbench.net.clients import ERRORS, open_client

SCHEMA = "tipbench.notice/1"
ATTEMPTS = 3
WAIT_S = 1.0
"""Before the second attempt; twice that before the third."""
TIMEOUT_S = 10.0

_log = logging.getLogger("tipbench")


@dataclass(frozen=True)
class Notice:
    """What happened, where, and how many."""

    event: Literal["judge_wanted", "board_ready"]
    experiment: str
    text: str
    counts: Mapping[str, int]
    link: str = ""
    """Where to go on: the panel or the file, where that is known."""

    def body(self) -> dict[str, object]:
        """The JSON that is sent."""
        found: dict[str, object] = {
            "schema": SCHEMA,
            "event": self.event,
            "experiment": self.experiment,
            "text": self.text,
            "counts": dict(self.counts),
            "tipbench": __version__,
        }
        return found | ({"link": self.link} if self.link else {})


def judge_wanted(experiment: str, candidates: int, cells: int, where: str) -> Notice:
    """Somebody has tips to score; `where` says where they lie."""
    tips = "1 tip waits" if candidates == 1 else f"{candidates} tips wait"
    text = f"tipbench: {tips} for a judge in {experiment} ({where})."
    return Notice("judge_wanted", experiment, text, {"candidates": candidates, "cells": cells}, where)


def board_ready(experiment: str, headline: str, rows: int, judged: int, where: str) -> Notice:
    """A leaderboard is there; `headline` is its own."""
    text = f"tipbench: the board of {experiment} is ready. {headline}".strip()
    return Notice("board_ready", experiment, text, {"rows": rows, "judged": judged}, where)


def send(url: str, notice: Notice, *, wait_s: float = WAIT_S) -> bool:
    """POST the notice; tried again when nobody answers, or with 408, 429 or 5xx. False, and a warning, when it was not taken.

    Raises nothing: whoever has something to tell goes on whether it was heard or not. The address is a secret as a rule, and is not shown.
    """
    trouble, url = "", revealed(url)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            # The host alone: paths of webhooks have all kinds of characters in them.
            address = read_address("/".join(url.split("/")[:3]), "notify_url")
            with open_client(
                address, name="the notice's receiver", option="notify_url", timeout=httpx.Timeout(TIMEOUT_S)
            ) as client:
                answer = client.post(url, json=notice.body())
        except (*ERRORS, InputError) as error:
            trouble = type(error).__name__
            continue
        if answer.is_success:
            return True
        trouble = f"HTTP {answer.status_code}"
        if answer.status_code not in (408, 429) and answer.status_code < 500:
            break
    _log.warning("the notice about %s was not taken by %s (%s); going on", notice.experiment, _host(url), trouble)
    return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "notify_url"
    except ValueError:
        return "notify_url"
