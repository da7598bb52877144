"""SDK 2.x as a user runs it: PyTorchModel.deploy, predict, update_endpoint, delete; unpatched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.testing.platform import start

pytest.importorskip("sagemaker")
SCRIPT = '''
import io, json, sys, tarfile, time
import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.predictor import Predictor
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import IdentitySerializer, JSONSerializer

session = sagemaker.Session()
bucket, role = session.default_bucket(), sagemaker.get_execution_role()


def upload(name):
    with tarfile.open("model.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("name")
        info.size = len(name)
        archive.addfile(info, io.BytesIO(name.encode()))
    return session.upload_data("model.tar.gz", bucket, name)


def model(name):
    return PyTorchModel(
        model_data=upload(name), role=role, entry_point="inference.py", source_dir="code",
        framework_version="2.0", py_version="py310", sagemaker_session=session,
    )


def settle(predictor):
    """The SDK's own waiting looks every 30 s only."""
    client = session.sagemaker_client
    while True:
        seen = client.describe_endpoint(EndpointName=predictor.endpoint_name)
        if seen["EndpointStatus"] not in ("Creating", "Updating"):
            return seen["EndpointStatus"]
        time.sleep(0.1)


first = model("first")
predictor = first.deploy(
    1, "ml.m5.xlarge", wait=False, serializer=JSONSerializer(), deserializer=JSONDeserializer()
)
report = {"created": settle(predictor), "json": predictor.predict([1, 2])}
jpeg = Predictor(
    predictor.endpoint_name, session, IdentitySerializer("image/jpeg"), JSONDeserializer()
)
report["jpeg"] = jpeg.predict(b"abc")
second = model("second")
second.create(instance_type="ml.m5.xlarge")
predictor.update_endpoint(
    initial_instance_count=1, instance_type="ml.m5.xlarge", model_name=second.name, wait=False
)
report["updated"] = settle(predictor)
report["after"] = predictor.predict([3])
predictor.delete_model()
predictor.delete_endpoint(delete_endpoint_config=True)
first.delete_model()
client = session.sagemaker_client
while client.list_endpoints()["Endpoints"]:
    time.sleep(0.1)
report["models"] = len(client.list_models()["Models"])
report["configs"] = len(client.list_endpoint_configs()["EndpointConfigs"])
json.dump(report, open("report.json", "w"))
'''
INFERENCE = """
import json, os
def model_fn(model_dir):
    return open(os.path.join(model_dir, "name")).read()
def input_fn(body, content_type):
    return json.loads(body) if content_type == "application/json" else len(body)
def predict_fn(data, model):
    return [model, data]
"""


def test_pytorch_model_is_deployed_updated_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/inference.py").write_text(INFERENCE)
    (tmp_path / "script.py").write_text(SCRIPT)
    with start(tmp_path / "home") as platform:
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, **platform.environment(), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["created"] == report["updated"] == "InService"
    assert report["json"] == ["first", [1, 2]]
    assert report["jpeg"] == ["first", 3]
    assert report["after"] == ["second", [3]]
    # update_endpoint left the first configuration, as it does on AWS
    assert (report["models"], report["configs"]) == (0, 1)
