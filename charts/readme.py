"""Writes each chart's README.md from its Chart.yaml and values.yaml. `--check` only says which are stale.

A value is described by the comment above it, or by the one above the mapping it is in; a value with neither is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHARTS = Path(__file__).parent
PAGE = """<!-- Made by charts/readme.py from values.yaml; change it there. -->
# {name}

{description}. Version {version}, for {name} {app_version}.

```sh
helm upgrade --install {name} charts/{name} -n tipbench --wait --wait-for-jobs -f charts/{name}/values-kind.yaml   # or values-prod.yaml
helm test {name} -n tipbench
```

A typo in a value is an error: `values.schema.json` knows every key and its bounds.
`helm uninstall` keeps volumes and generated Secrets, so that a new install finds its data; when they are no longer wanted:
`kubectl -n tipbench delete pvc,secret -l app.kubernetes.io/instance={name}`.

{needs}| value | default | |
|---|---|---|
{rows}
"""
NEEDS = """## What the models need

MiB of a server, by `models.numCtx`; one slot, f16 cache. Made by `charts/memory.py` with the rule that `tipbench collect` refuses
by. Left empty, `memory` is the largest of `models.tags`, and a `memory` that cannot hold it is an error that spells out the sum. A
model that is not in the table goes into `models.memory`, with what `tipbench models --json` says of it.

{table}

## Values

"""


def rows(
    node: yaml.MappingNode, lines: list[str], prefix: str = "", inherited: bool = False
) -> Iterator[tuple[str, str, str]]:
    """(path, default as JSON or "" for a mapping, description) for every value below a mapping."""
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        comment = comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            if comment:
                yield path, "", comment
            yield from rows(value, lines, f"{path}.", bool(comment))
        else:
            if not comment and not inherited:
                raise SystemExit(f"{path}: no comment above it in values.yaml, nor above its mapping")
            default = json.dumps(yaml.safe_load(yaml.serialize(value)), ensure_ascii=False)
            yield path, default, comment


def comment_above(lines: list[str], line: int) -> str:
    """The comment lines that end right above a line, as one text."""
    start = line
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return " ".join(text.lstrip("# ").rstrip() for text in lines[start:line])


def escape(text: str) -> str:
    """A comment as the text of a table's cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def page(chart: Path) -> str:
    """The README of a chart."""
    facts = yaml.safe_load((chart / "Chart.yaml").read_text())
    text = (chart / "values.yaml").read_text()
    table = [
        f"| `{path}` | {f'`{default}`' if default else ''} | {escape(description)} |"
        for path, default, description in rows(yaml.compose(text), text.splitlines())
    ]
    return PAGE.format(
        name=facts["name"],
        description=facts["description"],
        version=facts["version"],
        app_version=facts["appVersion"],
        rows="\n".join(table),
        needs=needs(chart),
    )


def needs(chart: Path) -> str:
    """What each model needs, for the chart that knows it (made by charts/memory.py)."""
    file = chart / "files" / "memory.json"
    if not file.exists():
        return ""
    known = json.loads(file.read_text())
    contexts = [c for c in next(iter(known.values())) if all(c in row for row in known.values())]
    lines = [f"| model | {' | '.join(contexts)} |", f"|---|{'--:|' * len(contexts)}"]
    lines += [f"| `{name}` | {' | '.join(str(row[c][0]) for c in contexts)} |" for name, row in known.items()]
    return NEEDS.format(table="\n".join(lines))


def main(check: bool) -> int:
    """Write the pages, or say which of them are not as they would be written."""
    stale = []
    for chart in sorted(file.parent for file in CHARTS.glob("*/Chart.yaml")):
        readme, wanted = chart / "README.md", page(chart)
        if not readme.exists() or readme.read_text() != wanted:
            stale.append(f"charts/{chart.name}/README.md")
            if not check:
                readme.write_text(wanted)
    if check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run: python charts/readme.py\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
