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
