"""Rows going out, in the very columns that come in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tipbench.interchange.table import EXPECTED, JUDGE, VERSION


def columns_of(
    criteria: Sequence[str], *, expected: bool = False, variants: bool = False, versions: bool = False
) -> tuple[str, ...]:
    """The columns of an export with scores on `criteria`; those that few experiments need only where they are asked for."""
    names = ("model", "prompt", *(("variant",) if variants else ()), "scenario")
    judge = (*JUDGE, *((VERSION,) if versions else ()))
    means = tuple(c + EXPECTED for c in criteria) if expected else ()
    costs = ("output_tokens", "output_s", "peak_memory_bytes")
    return (*names, "index", "text", "situation", *costs, *judge, *criteria, *means)


def lines(rows: Iterable[Mapping[str, object]], columns: Sequence[str], *, jsonl: bool) -> Iterator[bytes]:
    """The file's content in UTF-8, piece by piece: a header and a line a row, or a JSON object a row. None is an empty cell."""
    if jsonl:
        for row in rows:
            body = {c: row[c] for c in columns if row.get(c) is not None}
            yield (json.dumps(body, ensure_ascii=False) + "\n").encode()
        return
    buffer = io.StringIO(newline="")
    # RFC 4180's line end; with it, a lone carriage return in a text is quoted, too.
    writer = csv.writer(buffer, lineterminator="\r\n")

    def flush() -> bytes:
        content = buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        return content

    writer.writerow(columns)
    yield flush()
    for row in rows:
        writer.writerow(["" if row.get(c) is None else row[c] for c in columns])
        yield flush()
