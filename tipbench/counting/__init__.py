"""What counts: the one place that says which cells stand on the board, which candidates are judged, by whom, and what is pending.

Everything here is a pure function of what the store holds (`Holdings`), of the rubric's hash and of who was asked; nothing here reads or
writes, but for `marks`, which keeps copies of the answer where people and the DAG look for them. Export, apply, compare, agreement, the API, the
pipeline and the DAG's sensor all ask here.

- `identity`: what a cell is. Names are labels.
- `census`: which cells count, and which are superseded, twins of others, or failed.
- `judged`: whose scores count, and what is pending for whom.
- `status`: the answer as it crosses borders.
"""
