"""What to write into a requirements.txt for a module that a script imports and that is not there.

Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder

ADD = "{name} is not in the environment. To install it, add this line to requirements.txt: {line}"
UNKNOWN = (
    "{name} is neither beside the script nor in the environment. If it is a package's, name that "
    "package in requirements.txt."
)
NOT_PUBLISHED = "{name} is not in the environment, and no package has it: {instead}"
RENAMED = (
    "{name} is now called {new}: import that instead. "
    "To install it, add this line to requirements.txt: {new}"
)
MISSING = re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)")
TRACEBACK = "Traceback (most recent call last):"
CHAINED = re.compile(
    r"During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:"
)
LAUNCHER = "torch.distributed.elastic"  # torchrun's own traceback follows those of its processes

# Modules whose packages have another name.
OTHER_NAMES: Mapping[str, str] = {
    "IPython": "ipython",
    "Cython": "cython",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "absl": "absl-py",
    "bs4": "beautifulsoup4",
    "cairosvg": "CairoSVG",
    "community": "python-louvain",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "detectron2": "git+https://github.com/facebookresearch/detectron2.git",
    "distutils": "setuptools",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "face_detection": "face-detection",
    "faiss": "faiss-cpu",
    "ffmpeg": "ffmpeg-python",
    "fitz": "pymupdf",
    "flash_attn": "flash-attn",
    "git": "gitpython",
    "google.protobuf": "protobuf",
    "hydra": "hydra-core",
    "imblearn": "imbalanced-learn",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "lightning_fabric": "lightning",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "mysql": "mysql-connector-python",
    "pkg_resources": "setuptools",
    "prometheus_client": "prometheus-client",
    "psycopg2": "psycopg2-binary",
    "pytorch_lightning": "pytorch-lightning",
    "ruamel": "ruamel.yaml",
    "sagemaker_mlflow": "sagemaker-mlflow",
    "sagemaker_containers": "sagemaker-containers",
    "sagemaker_inference": "sagemaker-inference",
    "sagemaker_training": "sagemaker-training",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "sentence_transformers": "sentence-transformers",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "skopt": "scikit-optimize",
    "sklearn": "scikit-learn",
    "sklearn_pandas": "sklearn-pandas",
    "snowflake": "snowflake-connector-python",
    "smexperiments": "sagemaker-experiments",
    "spacy_sentence_bert": "spacy-sentence-bert",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_hub": "tensorflow-hub",
    "tensorflow_text": "tensorflow-text",
    "tensorflow_addons": "tensorflow-addons",
    "umap": "umap-learn",
    "websocket": "websocket-client",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
# Modules whose packages have their name.
NAMES = """
    accelerate aiohttp albumentations altair annoy audio2numpy autogluon awswrangler
    bitsandbytes black bokeh boto3 botocore catboost category_encoders cleanlab clearml click
    cloudpickle comet_ml cryptography dask datasets deepspeed diffusers dill dvc einops evaluate
    fairscale fastai fastapi fastparquet fasttext feather featuretools flair flask fsspec ftfy
    fvcore gensim geopandas gluoncv gluonts gradio h5py holidays horovod huggingface_hub
    hyperopt imageio imutils ipykernel jax jinja2 joblib jsonlines keras kornia langchain
    langdetect librosa lifelines lightgbm lightning lime lxml matplotlib mlflow mlxtend monai mpi4py
    multiprocess mxnet neptune networkx ninja nltk numba numpy omegaconf onnx onnxruntime openai
    openl3 openpyxl optuna packaging pandas pandera patsy peft pip plotly pmdarima polars
    prophet psutil pyarrow pydantic pydicom pydub pymongo pymysql pynvml pyspark pytesseract
    pythainlp pytorch_forecasting ray rdkit redis regex requests retrying rouge rouge_score s3fs
    sacrebleu sacremoses safetensors sagemaker scipy seaborn sentencepiece seqeval shap
    simpletransformers six smart_open smclarify smdebug soundfile spacy sqlalchemy statsmodels
    streamlit sympy tabulate tenacity tensorboard tensorboardX tensorflow textblob thop tiktoken
    timm tokenizers torch torchaudio torchdata torchinfo torchmetrics torchsummary torchtext
    torchvision tqdm transformers trl tsfresh ultralytics unidecode urllib3 wandb werkzeug wget
    wordcloud xarray xformers xgboost xlrd yfinance
"""
SAME_NAMES = frozenset(NAMES.split())
NEW_NAMES: Mapping[str, str] = {"fbprophet": "prophet"}
NOWHERE: Mapping[str, str] = {
    "smdistributed": "it is for AWS's GPU clusters. Use torch.distributed with the backend gloo.",
}


def line_for(module: str) -> str:
    """Return the line that adds a module; empty when no known package has it."""
    name = module.partition(".")[0]
    if module in OTHER_NAMES or name in OTHER_NAMES:
        return OTHER_NAMES.get(module) or OTHER_NAMES[name]
    return name.replace("_", "-") if name in SAME_NAMES else ""


def advice(module: str) -> str:
    """Return what to do about a module that is not there, in a line.

    No name is guessed: under the name of a file that was forgotten, somebody may have a package.
    """
    name = module.partition(".")[0]
    if name in NOWHERE:
        return NOT_PUBLISHED.format(name=name, instead=NOWHERE[name])
    if name in NEW_NAMES:
        return RENAMED.format(name=name, new=NEW_NAMES[name])
    line = line_for(module)
    return (ADD if line else UNKNOWN).format(name=name, line=line)


def advice_for(stderr: str, path: Sequence[str]) -> str:
    """Return what to do about the module that a script failed for want of; empty: for none.

    stderr: its end. path: where the script's interpreter looks for modules. A part of a package
    that is there is no reason to install it.
    """
    module = missing_module(stderr)
    if not module or PathFinder.find_spec(module.partition(".")[0], list(path)):
        return ""
    return advice(module)


def missing_module(stderr: str) -> str:
    """Return the module that the last traceback misses, or one of those that led to it."""
    blocks = stderr.split(TRACEBACK)
    for number in range(len(blocks) - 1, 0, -1):
        found = MISSING.findall(blocks[number])
        if found:
            return str(found[-1])
        if LAUNCHER not in blocks[number] and not CHAINED.search(blocks[number - 1]):
            return ""
    return ""
