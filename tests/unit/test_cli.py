"""The command line: every command explains itself, starts quickly, and says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tipbench.cli import cli
from tipbench.config import KEYS

pytestmark = pytest.mark.unit


def _commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += _commands(command, (*prefix, name))
    return found


@pytest.mark.parametrize("command", _commands(cli), ids=" ".join)
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    if command != ("judge",):
        assert "Example" in result.output and f"tipbench {' '.join(command)}" in result.output


@pytest.mark.parametrize("group", [(), ("judge",)], ids=["tipbench", "judge"])
def test_a_list_of_commands_is_in_the_order_of_use_and_cuts_no_sentence(group: tuple[str, ...]) -> None:
    listed = CliRunner().invoke(cli, [*group, "--help"]).output.split("Commands:")[1].split("\n\n")[0]
    assert "..." not in listed
    first, second = ("export", "score") if group else ("collect", "judge")
    assert listed.index(f"  {first} ") < listed.index(f"  {second} ")


def test_help_names_the_exit_codes() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    for code in ("0  done", "2  usage", "3  the RAM policy", "4  finished, but some cells failed", "5  a service"):
        assert code in output


def test_every_configuration_key_is_an_option_and_a_variable_of_collect() -> None:
    command = cli.commands["collect"]
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}
    for name in KEYS:
        assert options[name].envvar == f"TIPBENCH_{name.upper()}"
        assert f"--{name.replace('_', '-')}" in options[name].opts


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, tipbench.cli; print(sorted({m.split('.')[0] for m in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("mlflow", "numpy", "pydantic", "httpx", "rich", "yaml", "matplotlib", "jinja2"):
        assert f"'{heavy}'" not in modules, heavy


def test_an_option_wins_over_the_variable_and_both_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    monkeypatch.setattr(
        "tipbench.cli.collecting.collect_cells", lambda config, quiet: seen.update(config=config) or sys.exit(0)
    )
    path = tmp_path / "c.yaml"
    path.write_text("n_tips: 2\nn_scenarios: 2\ntemperature: 0.1\n")
    result = CliRunner().invoke(
        cli,
        ["collect", "--config", str(path), "--n-tips", "4"],
        env={"TIPBENCH_N_SCENARIOS": "3", "TIPBENCH_N_TIPS": "9"},
    )
    assert result.exit_code == 0, result.output
    config = seen["config"]
    assert (config.n_tips, config.n_scenarios, config.temperature) == (4, 3, 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["collect", "--n-tips", "0"], "n_tips: 0 is too small"),
        (["collect", "--experiment", "mine"], "experiment: 'mine' does not fit"),
        (["compare", "--weights", "tone", "--mlflow-url", "http://127.0.0.1:9"], "write it like relevance=2"),
        (["judge", "export", "--out", "x.json", "--repeats", "lots"], "write it like 5%"),
        (["compare", "--mlflow-url", "databricks://x"], "--mlflow-url"),
        (["judge", "score", "nowhere.json"], "nowhere.json"),
        (
            ["judge", "export", "--out", "x.json", "--judge", "no one!", "--mlflow-url", "store"],
            "a judge's name has letters",
        ),
        (["collect", "--prompts", "."], "there is no prompt (NAME.yaml)"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_usage_is_exit_2_and_says_what_to_do(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_a_config_file_with_faults_names_them_all(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("n_tips: many\nmodles: x\n")
    result = CliRunner().invoke(cli, ["collect", "--config", str(path)])
    assert result.exit_code == 2
    assert (
        "n_tips: needs a number" in result.output
        and "did you mean models?" in result.output
        and str(path) in result.output
    )
    path.write_text("- a\n- b\n")
    assert "needs keys and values" in CliRunner().invoke(cli, ["collect", "--config", str(path)]).output


@pytest.mark.parametrize("name", ["config", "exchange", "leaderboard", "cell"])
def test_schemas_are_published_from_the_models(name: str) -> None:
    result = CliRunner().invoke(cli, ["schema", name])
    schema = json.loads(result.output)
    assert schema["$schema"].endswith("2020-12/schema") and schema["type"] == "object" and schema["properties"]


def test_a_folder_of_prompts_stands_for_all_that_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "tipbench.cli.collecting.collect_cells", lambda config, quiet: seen.update(config=config) or sys.exit(0)
    )
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nuser: '{{{{ situation }}}}'\n")
    assert CliRunner().invoke(cli, ["collect", "--prompts", str(tmp_path)]).exit_code == 0
    assert seen["config"].prompt_list == ("a", "b") and seen["config"].prompts_dir == str(tmp_path)


def test_plan_says_how_small_a_difference_can_be_found() -> None:
    few = json.loads(CliRunner().invoke(cli, ["plan", "--json"]).output)
    many = json.loads(CliRunner().invoke(cli, ["plan", "--json", "--n-tips", "20"]).output)
    assert (few["n_cells"], few["n_scenarios"], few["candidates"]) == (12, 8, 480)
    assert 0 < many["difference"] < few["difference"] < 4
    text = CliRunner().invoke(cli, ["plan"]).output
    assert "480 tips" in text and "twice the scenarios" in text
    assert "No difference can be tested" in CliRunner().invoke(cli, ["plan", "--n-scenarios", "1"]).output


def test_several_ollamas_are_for_a_cluster_to_share_out(tmp_path: Path) -> None:
    two = "http://one.invalid:1,http://two.invalid:1"
    done = CliRunner().invoke(cli, ["collect", "--ollama-url", two, "--mlflow-url", str(tmp_path / "store")])
    assert done.exit_code == 2 and "TIPBENCH_LEASE_NAMESPACE" in done.output


def test_a_judge_without_ollama_does_not_care_how_many_there_are(tmp_path: Path) -> None:
    two = "http://one.invalid:1,http://two.invalid:1"
    (tmp_path / "judge.json").write_text("no exchange file")
    done = CliRunner().invoke(
        cli, ["judge", "score", str(tmp_path / "judge.json"), "--with", "baseline", "--ollama-url", two]
    )
    assert done.exit_code == 2 and "judge.json" in done.output and "LEASE" not in done.output


def _options() -> list[tuple[tuple[str, ...], click.Option]]:
    found = []
    for path in _commands(cli):
        command: click.Command = cli
        for name in path:
            assert isinstance(command, click.Group)
            command = command.commands[name]
        found += [(path, p) for p in command.params if isinstance(p, click.Option)]
    return found


def _value(option: click.Option, again: bool = False) -> str:
    """Something that the option takes."""
    if isinstance(option.type, click.Choice):
        return str(option.type.choices[0])
    if isinstance(option.type, click.Path):
        return __file__ if option.type.exists else "there"
    name = option.name or ""
    if name in KEYS:
        return str(KEYS[name].default) or {"memory_limit": "2Gi"}.get(name, "there")
    return {"weights": "tone=1" if again else "relevance=1", "repeats": "5%"}.get(name, "1")


@pytest.mark.parametrize(
    ("path", "option"), _options(), ids=lambda v: " ".join(v) if isinstance(v, tuple) else v.opts[0]
)
def test_an_option_given_twice_adds_up_or_is_refused(path: tuple[str, ...], option: click.Option) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    required = [
        w
        for p in command.params
        if p.required
        for w in ([p.opts[0], _value(p)] if isinstance(p, click.Option) else [__file__])
    ]
    if path == ("schema",):
        required = ["config"]
    if option.required:
        required = required[2:]
    if option.is_flag:
        twice = [option.opts[0], (option.secondary_opts or option.opts)[0]]
    else:
        twice = [option.opts[0], _value(option), option.opts[0], _value(option, again=True)]
    try:
        context = command.make_context(path[-1], [*required, *twice], resilient_parsing=False)
    except click.UsageError as error:
        assert "is given 2 times; give it once" in str(error) and option.opts[0] in str(error)
    else:
        value = context.params[option.name or ""]
        assert (option.multiple and len(value) == 2) or (option.is_flag and not option.secondary_opts and value is True)


def test_lists_that_are_given_twice_are_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "tipbench.cli.collecting.collect_cells", lambda config, quiet: seen.update(config=config) or sys.exit(0)
    )
    words = ["collect", "--models", "a", "--models", "b,c", "--prompts", "v1", "--prompts", "v2-mentor"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert seen["config"].model_list == ("a", "b", "c") and seen["config"].prompt_list == ("v1", "v2-mentor")
    assert CliRunner().invoke(cli, ["collect"], env={"TIPBENCH_MODELS": "a, b"}).exit_code == 0
    assert seen["config"].model_list == ("a", "b")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--weights", "relevance=1", "--weights", "relevance=2"], "relevance has two weights"),
        (["--weights", "relevance=nan"], "relevance: needs a number, not 'nan'"),
        (["--weights", "relevance=1e400"], "relevance: needs a finite number"),
        (["--weights", "relevance=0,7"], "write it like relevance=2"),
        (["--weights", "relevance="], "relevance: is empty"),
        (["--weights", ""], "write it like relevance=2"),
        (["--seed", "-1"], "-1 is too small"),
        (["--seed", "9" * 500], "500"),
        (["--seed", ""], "is empty"),
    ],
    ids=range(9),
)
def test_a_number_that_is_none_is_named_with_its_option(words: list[str], fault: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["compare", "--mlflow-url", str(tmp_path / "store"), *words])
    assert done.exit_code == 2 and fault in " ".join(done.output.split()), done.output
    assert words[0] in done.output and len(done.output) < 600


def test_a_fault_in_a_variable_names_the_variable() -> None:
    done = CliRunner().invoke(cli, ["collect"], env={"TIPBENCH_N_TIPS": "3m"})
    assert done.exit_code == 2 and "TIPBENCH_N_TIPS" in done.output and "'3m'" in done.output
    done = CliRunner().invoke(cli, ["collect"], env={"TIPBENCH_N_TIPS": "999", "TIPBENCH_MEMORY_LIMIT": "2gb"})
    assert "n_tips (TIPBENCH_N_TIPS): 999 is too large" in done.output
    assert "memory_limit (TIPBENCH_MEMORY_LIMIT): '2gb' does not fit" in done.output


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_file_of_any_editor_is_read(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "tipbench.cli.collecting.collect_cells", lambda config, quiet: seen.update(config=config) or sys.exit(0)
    )
    for name, text in (("c.yaml", "n_tips: 2\r\n"), ("c.json", '{\t"n_tips": 2e0}')):
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert CliRunner().invoke(cli, ["collect", "--config", str(tmp_path / name)]).exit_code == 0
        assert seen["config"].n_tips == 2
    (tmp_path / "c.yaml").write_text("n_tips: 2\nn_tips: 3\n")
    done = CliRunner().invoke(cli, ["collect", "--config", str(tmp_path / "c.yaml")])
    assert done.exit_code == 2 and "line 2, n_tips: the key stands twice" in done.output
