"""README's blocks run, in their order, as a newcomer would type them."""

import re
import subprocess
from pathlib import Path

import pytest
from cli_command import Cloche

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.torch
def test_the_blocks_run(cloche: Cloche, tmp_path: Path) -> None:
    # The default port may be taken on a machine that tests run on.
    blocks = [
        (kind, name, text.replace("--detach", f"--detach --port {cloche.port}"))
        for kind, name, text in BLOCK.findall(README.read_text())
    ]
    assert {kind for kind, _, _ in blocks} == {"sh", "python"}
    said = []
    for kind, name, text in blocks:
        if kind == "python":
            (tmp_path / name).write_text(text)
            continue
        done = subprocess.run(
            ["sh", "-euc", text],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=cloche.environment,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    up, ran, admin, shell = said
    assert f"Cloche is up at http://127.0.0.1:{cloche.port}" in up
    assert "input: hello.txt" in ran
    assert re.search(r"the model: s3://sagemaker-us-east-1-\d{12}/.*/model.tar.gz", ran)
    assert "/aws/sagemaker/TrainingJobs" in ran
    assert '"PolicyName": "AdministratorAccess"' in admin
    assert "assumed-role/AmazonSageMaker-ExecutionRole-" in shell and "Cloche is down" in shell


def test_its_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README.read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
