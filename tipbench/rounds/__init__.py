"""Rounds: an experiment that stops when it is sure, block by block.

- `record`: what is fixed (the order of scenarios, who takes part) and what was decided (looks, drops, cells taken back); events in the store,
  read without any statistics, so that collecting needs none.
- `standing`: the scores that count, put before `stats.sequential`; looks that were taken are recorded.
- `words`: the answer for a person, and as it crosses borders.
"""
