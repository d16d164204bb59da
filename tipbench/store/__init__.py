"""The only room that knows MLflow: cells, collections, exports, judgments and leaderboards as runs.

| run kind (tag `tipbench.kind`) | holds |
|---|---|
| `collection` | plan, reproducibility receipt, refused models; parent of its cells |
| `cell` | params, metrics, `candidates.json` |
| `export` | the key that leads from the opaque ids of one exchange file back to the candidates |
| `judgment` | a log of scores, append-only: an applied exchange file's, or those that a service got one by one |
| `archive`, `index` | logs and cells put together, so that they are read in few requests; made anew from the others at any time |
| `leaderboard` | the JSON, Markdown and HTML of one comparison |

The store keeps and reads; what of it counts is for `counting` to say.
"""

from __future__ import annotations

from tipbench.store.backend import StoreError, StoreUnreachable
from tipbench.store.part import now_ms
from tipbench.store.store import Store, open_store

__all__ = ["Store", "StoreError", "StoreUnreachable", "now_ms", "open_store"]
