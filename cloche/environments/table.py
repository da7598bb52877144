"""THE table: framework, the image repositories it stands behind, and the packages behind them.

Nothing is pulled. An image of any tag stands for one environment on this machine, as `cloche image
list` shows it. Repositories are those that `sagemaker.image_uris` of the SDKs 2.x names; the
packages are AWS's images' (`image_contents.py`). Their lower bounds are of 2023, when those images
had them (scikit-learn 1.2, XGBoost 1.7, PyTorch 2.0, TensorFlow 2.12) and Python 3.11 its wheels;
pip finds the newest.

What AWS's image has too but few scripts use, and what would hold back the others, is an environment
over another: its packages go before those beneath. It takes the other's place for scripts that
import a module of its own.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloche.environments.image_contents import DATA, HELD, distributions, packages

Handlers = Literal["pytorch", "scikit-learn", "huggingface"]


@dataclass(frozen=True, slots=True)
class Framework:
    """One line of the table."""

    name: str
    repositories: tuple[str, ...]  # as in REGISTRY/REPOSITORY:TAG
    packages: tuple[str, ...]  # what pip is asked for (PEP 508)
    # Where Cloche's own Python has these distributions, in such versions, it stands in and nothing
    # is built. Empty: an environment of its own is always needed.
    enough: tuple[str, ...] = ()
    tested: bool = False  # end to end, by Cloche's own tests
    # Versions with which it trained and served once (test_images_on_demand.py, opt-in).
    tried: str = ""
    handlers: Handlers = "pytorch"  # whose default input_fn, predict_fn, output_fn serve
    training_module: str = "sagemaker_pytorch_container.training:main"  # SM_FRAMEWORK_MODULE
    # AWS's image joins the script's command with spaces and gives it to a shell, which splits the
    # hyperparameters into words (its toolkit captures errors).
    shell: bool = False
    preload: tuple[str, ...] = ()  # modules that take long to import, kept in a fork server
    over: str = ""  # name of the environment that it stands on
    imported: tuple[str, ...] = ()  # the modules by whose import a script asks for it
    toolkits: bool = False  # `cloche.toolkits` is installed too
    note: str = ""  # what differs from AWS's image
    # The built-in algorithm that AWS's image is when no script is named; it is not here.
    algorithm: str = ""
    added: bool = False  # by the user


TORCH = ("torch", "torchvision", "pandas", "sklearn")  # modules that scripts for PyTorch import

OPEN_MPI = Framework(
    name="openmpi",
    repositories=(),
    packages=("openmpi>=5,<6", "mpi4py>=4"),
    tested=True,
    note="For training jobs whose distribution is mpi, beside their image's environment.",
)

IMAGES: tuple[Framework, ...] = (
    Framework(
        name="pytorch",
        repositories=(
            "pytorch-training",
            "pytorch-inference",
            "pytorch-inference-graviton",
            "sagemaker-pytorch",
        ),
        packages=packages(HELD["pytorch"]),
        enough=distributions(HELD["pytorch"]),
        tested=True,
        shell=True,
        preload=TORCH,
    ),
    Framework(
        name="scikit-learn",
        repositories=("sagemaker-scikit-learn",),
        packages=packages(HELD["scikit-learn"]),
        enough=distributions(HELD["scikit-learn"]),
        tested=True,
        handlers="scikit-learn",
        training_module="sagemaker_sklearn_container.training:main",
        preload=("sklearn", "pandas", "scipy"),
    ),
    Framework(
        name="xgboost",
        repositories=("sagemaker-xgboost",),
        packages=packages(HELD["xgboost"]),
        enough=distributions(HELD["xgboost"]),
        handlers="scikit-learn",
        training_module="sagemaker_xgboost_container.training:main",
        tried="xgboost 3.2",
        algorithm="XGBoost",
        note="Script mode only, not the built-in algorithm; input_fn gets arrays, no DMatrix.",
    ),
    Framework(
        name="huggingface",
        repositories=("huggingface-pytorch-training", "huggingface-pytorch-inference"),
        packages=packages(HELD["huggingface"]),
        enough=distributions(HELD["huggingface"]),
        handlers="huggingface",
        shell=True,
        tried="torch 2.14, transformers 5.24",
        note="Serves HF_TASK with the model's files, or your handlers; JSON; no HF_MODEL_ID.",
    ),
    Framework(
        name="tensorflow",
        repositories=(
            "tensorflow-training",
            "tensorflow-inference",
            "tensorflow-inference-graviton",
            "sagemaker-tensorflow-scriptmode",
        ),
        packages=packages(HELD["tensorflow"]),
        enough=distributions(HELD["tensorflow"]),
        handlers="scikit-learn",
        training_module="sagemaker_tensorflow_container.training:main",
        tried="tensorflow 2.21",
        note="Serves with your model_fn and predict_fn; there is no TensorFlow Serving.",
    ),
)

SMDEBUG = Framework(
    name="smdebug",
    repositories=(),
    # Its last release asks for this protobuf, and calls what NumPy 2.3 has no more.
    packages=("smdebug==1.0.34", "protobuf==3.20.3", "numpy>=1.23,<2.3"),
    over="pytorch",
    imported=("smdebug",),
    tested=True,
    shell=True,
    preload=TORCH,
    note="For training scripts that import smdebug: its hooks collect tensors.",
)
# Modules of AWS's images, and flask, with whose Response handlers answer.
TOOLKIT_MODULES = (
    "sagemaker_training",
    "sagemaker_inference",
    "sagemaker_containers",
    "sagemaker_algorithm_toolkit",
    "sagemaker_huggingface_inference_toolkit",
    "sagemaker_pytorch_serving_container",
    "sagemaker_sklearn_container",
    "sagemaker_xgboost_container",
    "flask",
    "mms",
)
TOOLKITS = ("sagemaker-inference>=1.10", "flask>=3", DATA["joblib"], DATA["scipy"])


def with_toolkits(base: Framework) -> Framework:
    """Return the environment that has AWS's toolkits over another."""
    # From version 5 on it needs a protobuf that smdebug does not take.
    training = (
        "sagemaker-training>=4.8,<5" if base.name == SMDEBUG.name else "sagemaker-training>=5"
    )
    return replace(
        base,
        name=f"{base.name}-toolkits",
        repositories=(),
        packages=(training, *TOOLKITS),
        enough=(),
        tested=base.name in ("pytorch", "scikit-learn"),
        tried="",
        over=base.name,
        imported=TOOLKIT_MODULES,
        toolkits=True,
        note="For scripts that import modules of AWS's images, such as sagemaker_inference.",
        algorithm="",
    )


FRAMEWORKS: tuple[Framework, ...] = (
    *IMAGES,
    SMDEBUG,
    OPEN_MPI,
    *(with_toolkits(base) for base in (*IMAGES, SMDEBUG)),
)

# Images that are SageMaker's built-in algorithms and nothing else, by repository.
# https://docs.aws.amazon.com/sagemaker/latest/dg/algos.html
BUILT_IN: Mapping[str, str] = {
    "blazingtext": "BlazingText",
    "factorization-machines": "Factorization Machines",
    "forecasting-deepar": "DeepAR",
    "image-classification": "Image Classification",
    "ipinsights": "IP Insights",
    "kmeans": "K-Means",
    "knn": "K-Nearest Neighbors",
    "lda": "LDA",
    "linear-learner": "Linear Learner",
    "ntm": "NTM",
    "object-detection": "Object Detection",
    "object2vec": "Object2Vec",
    "pca": "PCA",
    "randomcutforest": "Random Cut Forest",
    "semantic-segmentation": "Semantic Segmentation",
    "seq2seq": "Sequence-to-Sequence",
    "xgboost": "XGBoost",
}


def base_of(framework: Framework) -> Framework | None:
    """Return what an environment stands on; None: on Python alone."""
    return next((each for each in FRAMEWORKS if each.name == framework.over), None)


def beneath(framework: Framework) -> tuple[Framework, ...]:
    """Return what an environment stands on, the nearest first."""
    base = base_of(framework)
    return () if base is None else (base, *beneath(base))


def over(framework: Framework) -> tuple[Framework, ...]:
    """Return the environments that may stand on one, also on one another."""
    return tuple(each for each in FRAMEWORKS if framework in beneath(each))


def modules_of(framework: Framework) -> frozenset[str]:
    """Return the modules that an environment has because scripts ask for them."""
    return frozenset(n for each in (framework, *beneath(framework)) for n in each.imported)


def asked_for(base: Framework) -> frozenset[str]:
    """Return the modules whose import asks for another environment than an image's own."""
    return frozenset(name for each in over(base) for name in modules_of(each))


def fitting(base: Framework, imported: Collection[str]) -> Framework:
    """Return the environment for an image's script by what it imports: the least that has most."""
    return min(
        (base, *over(base)),
        key=lambda each: (-len(modules_of(each) & set(imported)), len(beneath(each))),
    )


def is_tool(framework: Framework) -> bool:
    """Return whether it stands for no image, but is used beside others' environments."""
    return not (framework.repositories or framework.over)


def named_here(framework: Framework) -> bool:
    """Return whether this table names just these packages under this name.

    Others' packages run nowhere but in sandboxes: neither their builds, nor in a fork server.
    """
    return any((f.name, f.packages) == (framework.name, framework.packages) for f in FRAMEWORKS)
