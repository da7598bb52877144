"""SDK 2.x: deploy a model, ask it, give the endpoint another configuration, delete everything."""

import json
import tarfile

import projects
import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import IdentitySerializer, JSONSerializer


def packed(batch_size: int) -> str:
    """Return the URI of a model archive."""
    with open("model.json", "w") as file:
        json.dump({"batch_size": batch_size}, file)
    with tarfile.open("model.tar.gz", "w:gz") as archive:
        archive.add("model.json")
    return session.upload_data("model.tar.gz", key_prefix=f"models/{batch_size}")


def model(batch_size: int) -> PyTorchModel:
    """Return a model of this size."""
    return PyTorchModel(
        model_data=packed(batch_size),
        role=role,
        entry_point="inference.py",
        source_dir="code",
        framework_version="1.8",
        py_version="py36",
        sagemaker_session=session,
    )


projects.write()
session = sagemaker.Session()
role = sagemaker.get_execution_role()
first, second = model(1), model(2)
predictor = first.deploy(
    1, "ml.m5.large", serializer=JSONSerializer(), deserializer=JSONDeserializer()
)
report = {"version": sagemaker.__version__, "json": predictor.predict({"x": [1, 2]})}
predictor.serializer = IdentitySerializer("image/jpeg")
report["jpeg"] = predictor.predict(b"12345")
create = getattr(second, "create", None) or second._create_sagemaker_model  # 2.70 has no create
create(instance_type="ml.m5.large")
predictor.update_endpoint(1, "ml.m5.large", model_name=second.name)
report["updated"] = predictor.predict(b"")
second.delete_model()
first.delete_model()
predictor.delete_endpoint()
client = session.sagemaker_client
report["left"] = [
    each["ModelName"]
    for each in client.list_models(MaxResults=100)["Models"]
    if each["ModelName"] in (first.name, second.name)
]
report["endpoint"] = predictor.endpoint_name
with open("report.json", "w") as file:
    json.dump(report, file)
