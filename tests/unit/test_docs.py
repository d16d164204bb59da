"""The pages of the reference say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tipbench.cli import EXIT_CODES, cli
from tipbench.config import KEYS, type_of
from tipbench.engines.ollama import Limits
from tipbench.judging.validate import MAX_BYTES, MAX_DEPTH, MAX_FAULTS
from tipbench.store.rest import RETRY_S

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def test_the_table_of_keys_is_the_one_definition() -> None:
    rows = []
    for name, key in KEYS.items():
        default = str(key.default).lower() if type_of(name) is bool else key.default
        shown = "" if default == "" else f"`{default}`"
        rows.append(f"| `{name}` | {type_of(name).__name__} | {shown} | {key.metadata['help']} |")
    table = [
        line for line in page("configuration.md").splitlines() if re.match(r"\| `\w+` \| (str|int|float|bool) \|", line)
    ]
    assert table == rows, "docs/reference/configuration.md should have:\n" + "\n".join(rows)


def test_every_variable_that_is_read_is_documented() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tipbench").rglob("*.py"))
    read = set(re.findall(r"\bTIPBENCH_[A-Z_]*[A-Z]\b", code))
    settings = (ROOT / "tipbench" / "api" / "settings.py").read_text(encoding="utf-8")
    read |= {f"TIPBENCH_{name}" for name in re.findall(r"""(?<![.\w])get\("([A-Z_]+)"\)""", settings)}
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert {name for name in read if name not in text and name.removeprefix("TIPBENCH_").lower() not in KEYS} == set()


def test_the_limits_are_the_codes_own() -> None:
    text, limits = page("limits.md"), Limits()
    for words in (
        f"about {limits.unreachable:.0f} s, with backoff",
        f"about {limits.queue_full:.0f} s, heeding",
        f"no first chunk for {limits.first_chunk:.0f} s, or silence of {limits.between_chunks:.0f} s",
        f"{limits.attempts} attempts",
        f"{RETRY_S:.0f} s for each call",
        f"{MAX_BYTES // 2**20} MiB, and be nested {MAX_DEPTH} deep; of its faults the first {MAX_FAULTS} are listed",
    ):
        assert words in text, words


def test_the_readme_has_every_exit_code() -> None:
    codes = re.findall(r"^  (\d+)  ", EXIT_CODES, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \| ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE) == codes


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


def printed_commands() -> list[tuple[str, str]]:
    """(page, command) of every `tipbench …` that README and docs print: in a block, over several lines, or within a sentence."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^\s*(?:\$ )?(?:\.venv/bin/)?(tipbench [a-z-].*)$", text, re.MULTILINE)
        lines += re.findall(r"`(?:\.venv/bin/)?(tipbench [a-z-][^`]*)`", text)
        for line in lines:
            # A sentence that begins with the program's name has words that no command has.
            # What stands in quotes belongs to the command, a bar in it, too.
            command = re.split(r"""\s#|[;&>](?=(?:[^"]*"[^"]*")*[^"]*$)|\|(?=(?:[^"]*"[^"]*")*[^"]*$)|, `""", line)[
                0
            ].strip()
            if command.split()[1] in cli.commands and "…" not in command and "..." not in command:
                found.append((path.name, " ".join(command.split())))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page_name", "line"), printed_commands(), ids=lambda value: value)
def test_every_command_that_is_printed_can_be_typed(page_name: str, line: str) -> None:
    command: click.Command = cli
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if isinstance(command, click.Group) or (not words and any(p.required for p in command.params)):
        return  # named, not called
    try:
        command.make_context(line, words)
    except click.BadParameter as error:
        assert "does not exist" in str(error), f"{page_name}: {line}: {error}"


def test_commands_are_found_where_they_are_printed() -> None:
    assert len(printed_commands()) > 30
