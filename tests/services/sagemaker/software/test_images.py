"""Framework images through boto3: scikit-learn trained and served; an environment of one's own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving_client import deploy, settled
from training_client import Trainer, source

from cloche.cli import main
from cloche.terminal import out
from cloche.testing.platform import Platform
from cloche.testing.wheel import write_wheel

SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
MINE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:7"
FIT = """
import os, joblib
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
print("module", os.environ["SM_FRAMEWORK_MODULE"])
"""
LOAD = """
import os, joblib
def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def serve(platform: Platform, role: str, image: str, name: str, uri: str, **variables: str) -> Any:
    """Put an endpoint up; return the client that invokes it."""
    sagemaker = platform.client("sagemaker")
    deploy(sagemaker, role, name, image, uri, **variables)
    found = settled(sagemaker, name)
    assert found["EndpointStatus"] == "InService", found
    return platform.client("sagemaker-runtime")


def test_scikit_learn_trained_and_served(platform: Platform, trainer: Trainer) -> None:
    pytest.importorskip("sklearn")
    numpy = pytest.importorskip("numpy")
    job = trainer.train(FIT, AlgorithmSpecification={"TrainingImage": SKLEARN})
    name = job["TrainingJobName"]
    log = trainer.log(name)
    assert job["TrainingJobStatus"] == "Completed", log
    heading = log.splitlines()[0]
    assert (
        heading.startswith("Cloche runs scikit-learn: Python 3.") and ", scikit-learn " in heading
    )
    assert heading.endswith(f"(asked for: {SKLEARN})")
    assert "module sagemaker_sklearn_container.training:main" in log.splitlines()
    # As the SDK's SKLearnModel does: the code beside the model, in an archive of its own.
    submitted = trainer.put("served/sourcedir.tar.gz", source({"serve.py": LOAD}))
    runtime = serve(
        platform,
        trainer.role,
        SKLEARN,
        "sklearn",
        job["ModelArtifacts"]["S3ModelArtifacts"],
        SAGEMAKER_PROGRAM="serve.py",
        SAGEMAKER_SUBMIT_DIRECTORY=submitted,
    )
    stream = io.BytesIO()
    numpy.save(stream, numpy.array([[0.0], [3.0]]))
    for content_type, body in (
        ("application/json", b"[[0.0], [3.0]]"),
        ("application/x-npy", stream.getvalue()),
    ):
        answer = runtime.invoke_endpoint(
            EndpointName="sklearn", ContentType=content_type, Accept="application/json", Body=body
        )
        assert json.loads(answer["Body"].read()) == [0, 1]
    platform.client("sagemaker").delete_endpoint(EndpointName="sklearn")


def run(monkeypatch: pytest.MonkeyPatch, platform: Platform, *arguments: str) -> None:
    """Run `cloche image …` on the platform's home, in this process."""
    home = ["--home", str(platform.home.path)]
    monkeypatch.setattr("sys.argv", ["cloche", "image", *arguments, *home])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)


def test_environment_of_ones_own(
    platform: Platform,
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Refused with the command to add it; built by command; then it trains and serves."""
    write_wheel(tmp_path, "clochetiny", "1.2", "ANSWER = 42\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    image = {"AlgorithmSpecification": {"TrainingImage": MINE}}
    home = platform.home.path
    with pytest.raises(ClientError) as refused:
        trainer.start("", **image)
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"] == (
        f"Cloche does not support the image {MINE}. There are environments for pytorch, "
        "scikit-learn, xgboost, huggingface, tensorflow. Say which packages stand for this one "
        f"with: cloche image add app --repository team/app --package PACKAGE --home {home}"
    )
    added = ("app", "--repository", "team/app", "--package", "clochetiny==1.2")
    run(monkeypatch, platform, "add", *added)
    assert (
        "It is built when a job or an endpoint first needs it, or with: "
        f"cloche image build app --home {home}"
    ) in capfd.readouterr().out
    run(monkeypatch, platform, "list")
    assert "not built yet, yours" in capfd.readouterr().out
    run(monkeypatch, platform, "build", "app")
    printed = capfd.readouterr()
    assert "Built app in " in printed.out and "clochetiny 1.2" in printed.out
    assert "Successfully installed clochetiny-1.2" in printed.err
    log = trainer.completed(
        "import clochetiny, importlib.util as u, os, sys\n"
        "print(clochetiny.ANSWER, u.find_spec('torch'), u.find_spec('cloche'))\n"
        "open(os.environ['SM_MODEL_DIR'] + '/x', 'w')\n"
        "open(clochetiny.__file__, 'w').write('ANSWER = 0')",
        **image,
    ).splitlines()
    assert log[0].startswith("Cloche runs app: Python 3.")
    assert log[0].endswith(f", clochetiny 1.2 (asked for: {MINE})")
    assert "42 None None" in log
    code = (
        "import clochetiny\n"
        "def model_fn(_): return clochetiny.ANSWER\n"
        "def transform_fn(model, body, kind, accept): return str(model)\n"
    )
    uri = trainer.put("mine/model.tar.gz", source({"code/inference.py": code}))
    runtime = serve(platform, trainer.role, MINE, "mine", uri)
    answer = runtime.invoke_endpoint(EndpointName="mine", Body=b"")
    assert answer["Body"].read() == b"42"  # what the job wrote into its packages was its own
    platform.client("sagemaker").delete_endpoint(EndpointName="mine")
    monkeypatch.setattr(out, "width", 200)
    run(monkeypatch, platform, "list")
    listed = capfd.readouterr().out
    assert "team/app" in listed and "ready (built 20" in listed and "), yours" in listed
    assert "not built yet" in listed and "untested" in listed and "Cloche's own" in listed
