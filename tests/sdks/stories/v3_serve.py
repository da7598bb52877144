"""SDK 3.x: build a model, deploy it, ask it; then the endpoint as a resource."""

import json
import tarfile

import projects
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.training.configs import SourceCode
from sagemaker.serve import ModelBuilder

projects.write()
session = Session()
image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.4-cpu-py311"
with open("model.json", "w") as file:
    json.dump({"batch_size": 3}, file)
with tarfile.open("model.tar.gz", "w:gz") as archive:
    archive.add("model.json")
builder = ModelBuilder(
    image_uri=image,
    s3_model_data_url=session.upload_data("model.tar.gz", key_prefix="models/v3"),
    source_code=SourceCode(source_dir="code", entry_script="inference.py"),
    instance_type="ml.m5.large",
    sagemaker_session=session,
)
model = builder.build(model_name="v3-model")
endpoint = builder.deploy(endpoint_name="v3-endpoint", instance_type="ml.m5.large")
answer = endpoint.invoke(body=json.dumps([1, 2]), content_type="application/json")
again = Endpoint.get("v3-endpoint")
report = {
    "model": model.model_name,
    "answer": json.loads(answer.body.read()),
    "status": again.endpoint_status,
    "listed": [each.endpoint_name for each in Endpoint.get_all(name_contains="v3-")],
}
config = EndpointConfig.get(again.endpoint_config_name)
other = EndpointConfig.create(
    endpoint_config_name="v3-other", production_variants=config.production_variants
)
again.endpoint_config_name = other.endpoint_config_name
again.update()
again.wait_for_status("InService", poll=1)
report["updated"] = Endpoint.get("v3-endpoint").endpoint_config_name
again.delete()
again.wait_for_delete(poll=1)
config.delete()
other.delete()
Model.get("v3-model").delete()
report["left"] = [each.model_name for each in Model.get_all(name_contains="v3-")]
with open("report.json", "w") as file:
    json.dump(report, file)
