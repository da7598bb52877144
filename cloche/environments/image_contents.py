"""What AWS's images hold: the modules that a script may import, and the packages that have them.

Each table is of one kind of image, from its public Dockerfiles and requirements: PyTorch's,
TensorFlow's and Hugging Face's of aws/deep-learning-containers (training and inference),
aws/sagemaker-scikit-learn-container, aws/sagemaker-xgboost-container. An environment is built from
its table, is ready when it has all of it, and a test imports it all. `LEFT_OUT` is the rest.
"""

from collections.abc import Mapping

Modules = Mapping[str, str]  # a module's name -> what pip is asked for (PEP 508)

DATA: Modules = {
    "numpy": "numpy>=1.23",
    "pandas": "pandas>=1.5",
    "pyarrow": "pyarrow>=10",
    "scipy": "scipy>=1.10",
    "sklearn": "scikit-learn>=1.2",
    "joblib": "joblib>=1.2",
}
TOOLS: Modules = {
    "boto3": "boto3>=1.26",
    "botocore": "botocore>=1.29",
    "dateutil": "python-dateutil>=2.8",
    "packaging": "packaging>=23",
    "psutil": "psutil>=5.9",
    "requests": "requests>=2.28",
    "tqdm": "tqdm>=4.64",
    "yaml": "pyyaml>=6",
}
PICTURES: Modules = {
    "PIL": "pillow>=9.4",
    # AWS: opencv-python, the same module, which needs libraries of a desktop.
    "cv2": "opencv-python-headless>=4.7",
    "imageio": "imageio>=2.25",
    "matplotlib": "matplotlib>=3.6",
    "seaborn": "seaborn>=0.12",
    "plotly": "plotly>=5.13",
    "bokeh": "bokeh>=3",
}
SAGEMAKER: Modules = {"sagemaker": "sagemaker>=2.130,<3"}
SERVED: Modules = {  # what scripts take from the model server's packages
    "flask": "flask>=2",
    "werkzeug": "werkzeug>=2",
    "jinja2": "jinja2>=3",
    "google.protobuf": "protobuf>=3.20",
    "retrying": "retrying>=1.3",
    "six": "six>=1.16",
}

PYTORCH: Modules = {
    "torch": "torch>=2",
    "torchvision": "torchvision>=0.15",
    "torchaudio": "torchaudio>=2",
    **DATA,
    **TOOLS,
    **PICTURES,
    **SAGEMAKER,
    "accelerate": "accelerate>=0.20",
    "click": "click>=8",
    "Cython": "cython>=0.29",
    "fsspec": "fsspec>=2023.1",
    "h5py": "h5py>=3.8",
    "IPython": "ipython>=8",
    "numba": "numba>=0.57",
    "shap": "shap>=0.41",
    "six": "six>=1.16",
}
SCIKIT_LEARN: Modules = {**DATA, **TOOLS, **SERVED}
XGBOOST: Modules = {
    "xgboost": "xgboost>=1.7",
    **DATA,
    **TOOLS,
    **SERVED,
    "dask": "dask>=2022.11",
    "matplotlib": "matplotlib>=3.6",
    "PIL": "pillow>=9.4",
}
HUGGING_FACE: Modules = {
    **PYTORCH,
    "transformers": "transformers>=4.28",
    "datasets": "datasets>=2.10",
    "diffusers": "diffusers>=0.20",
    "evaluate": "evaluate>=0.4",
    "peft": "peft>=0.4",
    "trl": "trl>=0.5",
    "dill": "dill>=0.3.6",
    "multiprocess": "multiprocess>=0.70.14",
    "sentencepiece": "sentencepiece>=0.1.99",
    "tensorboard": "tensorboard>=2.12",
    "jinja2": "jinja2>=3",
}
TENSORFLOW: Modules = {
    "tensorflow": "tensorflow>=2.12",
    "keras": "keras>=2.12",
    "tensorflow_datasets": "tensorflow-datasets>=4.9",
    **DATA,
    **TOOLS,
    **PICTURES,
    **SAGEMAKER,
    "absl": "absl-py>=1",
    "google.protobuf": "protobuf>=3.20",
    "h5py": "h5py>=3.8",
    "numba": "numba>=0.57",
    "shap": "shap>=0.41",
    "werkzeug": "werkzeug>=2",
}

HELD: Mapping[str, Modules] = {
    "pytorch": PYTORCH,
    "scikit-learn": SCIKIT_LEARN,
    "xgboost": XGBOOST,
    "huggingface": HUGGING_FACE,
    "tensorflow": TENSORFLOW,
}

# Modules of AWS's images that the environments don't have: a requirements.txt adds what can be.
LEFT_OUT: Mapping[str, str] = {
    "awscli": "needs one version of botocore, and would hold boto3 back",
    "bitsandbytes": "for GPUs",
    "dask_cuda": "for GPUs",
    "fastai": "brings spaCy and 40 more packages, for few scripts",
    "flash_attn": "for GPUs",
    "mlio": "published for Python 3.7 at most",
    "mpi4py": "needs an MPI library: an environment over this one",
    "multi_model_server": "the model server is Cloche's own",
    "official": "tf-models-official holds TensorFlow back",
    "pynvml": "for GPUs",
    "sagemaker_containers": "AWS's own, with sagemaker_training and sagemaker_inference",
    "smclarify": "needs s3fs of 2020",
    "smdebug": "an environment over this one",
    "smdistributed": "for AWS's GPU clusters; not published",
    "smexperiments": "needs pkg_resources, which setuptools has no more",
    "tensorflow_io": "not published for the newest TensorFlow",
    "tensorflow_text": "not published for the newest TensorFlow",
    "torchserve": "the model server is Cloche's own",
    "torchtext": "ended with PyTorch 2.3",
}


def packages(modules: Modules) -> tuple[str, ...]:
    """Return what pip is asked for."""
    return tuple(dict.fromkeys(modules.values()))


def distributions(modules: Modules) -> tuple[str, ...]:
    """Return the names of the packages."""
    return tuple(map(distribution, packages(modules)))


def distribution(package: str) -> str:
    """Return the name in a requirement: `torch` of `torch[x]>=2`."""
    end = next((n for n, c in enumerate(package) if not (c.isalnum() or c in "._-")), len(package))
    return package[:end]
