"""The user's files that the stories train and serve: plain Python, so that no framework is needed.

`write()` puts them into the working folder, as a user has them.
"""

from pathlib import Path

HPO = """
import argparse, json, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float, default=0.1)
parser.add_argument("--batch_size", type=int, default=32)
given, _ = parser.parse_known_args()
data = os.environ["SM_CHANNEL_TRAINING"]
print("files:", sorted(os.listdir(data)))
print("hosts:", os.environ["SM_HOSTS"], os.environ["SM_CURRENT_HOST"])
for step in range(3):
    loss = (given.learning_rate - 0.05) ** 2 + given.batch_size / 1000 + (2 - step) * 0.01
    print(f"Testing Loss: {loss:.6f}", flush=True)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "model.json"), "w") as file:
    json.dump({"learning_rate": given.learning_rate, "batch_size": given.batch_size}, file)
"""
INFERENCE = """
import json, os
def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.json")) as file:
        return json.load(file)
def input_fn(body, content_type):
    return json.loads(body) if content_type == "application/json" else len(body)
def predict_fn(data, model):
    return {"data": data, "batch_size": model["batch_size"]}
def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
METRICS = [{"Name": "average test loss", "Regex": r"Testing Loss: ([0-9\.]+)"}]
FILES = {"code/hpo.py": HPO, "code/inference.py": INFERENCE, "data/one.txt": "1\n"}


def write() -> None:
    """Write the files into the working folder."""
    for name, content in FILES.items():
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
