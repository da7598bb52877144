"""Images whose environments come from the registry: hundreds of megabytes, minutes. Opt-in:

    CLOCHE_TEST_IMAGES="xgboost tensorflow huggingface" pytest tests/services/…/this file

Each is trained by the estimator of SDK 2.x and served by its `deploy`, from nothing built.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.testing.platform import Platform

CHOSEN = os.environ.get("CLOCHE_TEST_IMAGES", "").split()
TYPES = {"instance_count": 1, "instance_type": "ml.m5.large"}
ACCOUNT = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
XGBOOST = """
import os, numpy, xgboost
def model_fn(model_dir):
    model = xgboost.Booster()
    model.load_model(os.path.join(model_dir, "model.json"))
    return model
def predict_fn(data, model):
    return model.predict(xgboost.DMatrix(numpy.asarray(data))) > 0.5
if __name__ == "__main__":
    data = numpy.random.RandomState(0).rand(200, 3)
    matrix = xgboost.DMatrix(data, label=data[:, 0] > 0.5)
    model = xgboost.train({"objective": "binary:logistic"}, matrix, num_boost_round=10)
    model.save_model(os.path.join(os.environ["SM_MODEL_DIR"], "model.json"))
"""
TENSORFLOW = """
import os, numpy, tensorflow
def model_fn(model_dir):
    return tensorflow.keras.models.load_model(os.path.join(model_dir, "model.keras"))
def predict_fn(data, model):
    return model.predict(numpy.asarray(data), verbose=0) > 1.5
if __name__ == "__main__":
    data = numpy.random.RandomState(0).rand(512, 3)
    layers = [tensorflow.keras.Input((3,)), tensorflow.keras.layers.Dense(1)]
    model = tensorflow.keras.Sequential(layers)
    model.compile(tensorflow.keras.optimizers.Adam(0.1), "mse")
    model.fit(data, data.sum(1, keepdims=True), epochs=10, verbose=2)
    model.save(os.path.join(os.environ["SM_MODEL_DIR"], "model.keras"))
"""
HUGGING_FACE = """
import os, datasets, tokenizers, transformers
if __name__ == "__main__":
    transformers.set_seed(0)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "bad": 1, "good": 2}, "?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="?", pad_token="?", model_max_length=16
    )
    sizes = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 16, "num_labels": 2}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
    half = [n % 2 for n in range(512)]
    data = {"input_ids": [[n + 1] * 2 for n in half], "labels": half}
    given = transformers.TrainingArguments(
        "/tmp/out", num_train_epochs=3, learning_rate=0.01, report_to=[], save_strategy="no"
    )
    transformers.Trainer(model, given, train_dataset=datasets.Dataset.from_dict(data)).train()
    for each in (model, tokenizer):
        each.save_pretrained(os.environ["SM_MODEL_DIR"])
"""
# The framework's script (TensorFlow's images serve `inference.py` alone), its estimator in the SDK,
# what it is asked, and the answer.
TRIED = {
    "xgboost": (
        XGBOOST,
        "sagemaker.xgboost.XGBoost",
        {"framework_version": "1.7-1"},
        {},
        [[0.9, 0.5, 0.5], [0.1, 0.5, 0.5]],
        [True, False],
    ),
    "tensorflow": (
        TENSORFLOW,
        "sagemaker.tensorflow.TensorFlow",
        {"framework_version": "2.16", "py_version": "py310"},
        {"entry_point": "inference.py", "source_dir": "code"},
        [[1.0, 1.0, 1.0], [0.0, 0.1, 0.0]],
        [[True], [False]],
    ),
    "huggingface": (
        HUGGING_FACE,
        "sagemaker.huggingface.HuggingFace",
        {"py_version": "py310", "image_uri": f"{ACCOUNT}/huggingface-pytorch-training:2.1.0-cpu"},
        {
            "image_uri": f"{ACCOUNT}/huggingface-pytorch-inference:2.1.0-cpu",
            "env": {"HF_TASK": "text-classification"},
        },
        {"inputs": ["bad bad", "good good"]},
        ["LABEL_0", "LABEL_1"],
    ),
}
USER = """
import importlib, json, sys, sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.serializers import JSONSerializer
where, estimator, deployed, asked = json.loads(sys.argv[1])
module, _, name = where.rpartition(".")
fitted = getattr(importlib.import_module(module), name)(
    entry_point="inference.py", source_dir="code", role=sagemaker.get_execution_role(), **estimator
)
fitted.fit()
predictor = fitted.deploy(
    1, "ml.m5.large", serializer=JSONSerializer(), deserializer=JSONDeserializer(), **deployed
)
answer = predictor.predict(asked)
predictor.delete_endpoint()
json.dump(answer, open("answer.json", "w"))
"""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TRIED)
def test_trained_and_served(name: str, platform: Platform, tmp_path: Path) -> None:
    if name not in CHOSEN:
        pytest.skip(f"not among CLOCHE_TEST_IMAGES={' '.join(CHOSEN)!r}")
    script, where, estimator, deployed, asked, expected = TRIED[name]
    (tmp_path / "code").mkdir()
    (tmp_path / "code/inference.py").write_text(script)
    told = json.dumps([where, estimator | TYPES, deployed, asked])
    ran = subprocess.run(
        [sys.executable, "-c", USER, told],
        cwd=tmp_path,
        env=os.environ | platform.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-8000:]
    assert f"[{name}] Building the environment {name}: " in ran.stdout
    assert f"Cloche runs {name}: Python 3." in ran.stdout
    answer = json.loads((tmp_path / "answer.json").read_text())
    if name == "huggingface":
        answer = [each["label"] for each in answer]
    assert answer == expected
