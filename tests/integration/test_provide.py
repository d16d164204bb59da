"""The models image's command, with nothing of tipbench but the files that its Dockerfile copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_env
from tests.fakes.ollama_server import FakeOllama

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
MARK = "zqMARKERqz"


def test_models_are_provided_by_the_shared_rules(tmp_path: Path) -> None:
    for line in re.findall(
        r"^COPY (.*tipbench/.*) (/tipbench\S*)$", (ROOT / "images/models/Dockerfile").read_text(), re.M
    ):
        target = tmp_path / line[1].strip("/")
        for name in line[0].split():
            source = ROOT / name
            target.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.yaml").write_text("{}")
    program = (
        (ROOT / "images/models/provide.py")
        .read_text()
        .replace('Path("/models")', f"Path({str(tmp_path / 'models')!r})")
    )
    (tmp_path / "provide.py").write_text(program)
    fake = FakeOllama().start()
    try:
        fake.library["new:1b"] = 1_000_000_000
        fake.pulls.append("dial tcp: lookup registry.ollama.ai: no such host")
        env = clean_env(tmp_path) | {
            "OLLAMA_URL": fake.url.replace("://", f"://u:{MARK}@"),
            "MODELS": "library/Small:1b,new:1b,hf.co/me/Llama-70B-GGUF:Q4_K_M,x:cloud,nothing:1b",
        }
        env.pop("PYTHONPATH", None)
        done = subprocess.run(
            [sys.executable, "provide.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
    finally:
        fake.stop()
    said = done.stdout + done.stderr
    assert done.returncode == 1 and MARK not in said and "Traceback" not in said, said
    assert "library/Small:1b: there already" in said and "new:1b: pulled" in said and "trying again" in said
    assert (
        "promises 70 billion parameters" in said
        and "cloud" in said
        and "nothing:1b: FAILED: pull model manifest" in said
    )
