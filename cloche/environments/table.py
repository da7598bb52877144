"""THE table: framework, the image repositories it stands behind, and the packages behind them.

Nothing is pulled. An image of any tag stands for one environment on this machine, as `cloche image
list` shows it. Repositories are those that `sagemaker.image_uris` of the SDKs 2.x names; the
packages are the main ones of AWS's images, in the versions that pip finds for this Python.
"""

from dataclasses import dataclass
from typing import Literal

Handlers = Literal["pytorch", "scikit-learn"]


@dataclass(frozen=True, slots=True)
class Framework:
    """One line of the table."""

    name: str
    repositories: tuple[str, ...]  # as in REGISTRY/REPOSITORY:TAG
    packages: tuple[str, ...]  # what pip is asked for (PEP 508)
    # Where Cloche's own Python has these distributions, it stands in and nothing is built.
    # Empty: an environment of its own is always needed.
    enough: tuple[str, ...] = ()
    tested: bool = False  # end to end, by Cloche's own tests
    handlers: Handlers = "pytorch"  # whose default input_fn, predict_fn, output_fn serve
    training_module: str = "sagemaker_pytorch_container.training:main"  # SM_FRAMEWORK_MODULE
    warm: tuple[str, ...] = ()  # modules that take long to import, kept in a fork server
    note: str = ""  # what differs from AWS's image
    added: bool = False  # by the user


FRAMEWORKS: tuple[Framework, ...] = (
    Framework(
        name="pytorch",
        repositories=(
            "pytorch-training",
            "pytorch-inference",
            "pytorch-inference-graviton",
            "sagemaker-pytorch",
        ),
        packages=("torch", "torchvision", "numpy", "pillow", "pandas", "scikit-learn", "boto3"),
        enough=("torch",),
        tested=True,
        warm=("torch", "torchvision", "pandas", "sklearn"),
    ),
    Framework(
        name="scikit-learn",
        repositories=("sagemaker-scikit-learn",),
        packages=("scikit-learn", "joblib", "numpy", "scipy", "pandas", "boto3"),
        enough=("scikit-learn", "joblib"),
        tested=True,
        handlers="scikit-learn",
        training_module="sagemaker_sklearn_container.training:main",
        warm=("sklearn", "pandas", "scipy"),
    ),
    Framework(
        name="xgboost",
        repositories=("sagemaker-xgboost",),
        packages=("xgboost", "scikit-learn", "joblib", "numpy", "scipy", "pandas", "boto3"),
        enough=("xgboost", "scikit-learn"),
        handlers="scikit-learn",
        training_module="sagemaker_xgboost_container.training:main",
        note="Script mode only, not the built-in algorithm; input_fn gets arrays, no DMatrix.",
    ),
    Framework(
        name="huggingface",
        repositories=("huggingface-pytorch-training", "huggingface-pytorch-inference"),
        packages=("torch", "transformers", "datasets", "accelerate", "numpy", "pandas", "boto3"),
        enough=("torch", "transformers", "datasets", "accelerate"),
        note="Serves with your model_fn and predict_fn; HF_MODEL_ID and HF_TASK are not read.",
    ),
    Framework(
        name="tensorflow",
        repositories=(
            "tensorflow-training",
            "tensorflow-inference",
            "tensorflow-inference-graviton",
            "sagemaker-tensorflow-scriptmode",
        ),
        packages=("tensorflow", "numpy", "pillow", "pandas", "scikit-learn", "boto3"),
        enough=("tensorflow",),
        handlers="scikit-learn",
        training_module="sagemaker_tensorflow_container.training:main",
        note="Serves with your model_fn and predict_fn; there is no TensorFlow Serving.",
    ),
)
