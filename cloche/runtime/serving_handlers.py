"""The handler contract of a model server: what user code in `code/` of a model may define.

`model_fn(model_dir)`, `input_fn(body, content_type)`, `predict_fn(data, model)`,
`output_fn(prediction, accept)`, or `transform_fn(model, body, content_type, accept)` in place of
the last three; `pre_model_fn(model_dir)`, `model_warmup_fn(model_dir, model)`. Each may take one
argument more: the context. Defaults are those of AWS's PyTorch containers
(sagemaker-inference-toolkit's Transformer, sagemaker-pytorch-inference-toolkit's handler), of its
scikit-learn container (sagemaker-scikit-learn-container's serving), or of its Hugging Face ones
(sagemaker-huggingface-inference-toolkit's handler service), as CLOCHE_HANDLERS says.
"""

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cloche.runtime import pip_words
from cloche.runtime import serving_formats as formats
from cloche.runtime import serving_toolkits as toolkits
from cloche.runtime.serving_context import Context

HANDLERS = "https://sagemaker.readthedocs.io/en/stable/"
MODEL_DIR = Path("/opt/ml/model")  # in a sandbox, as in a container
OWN_HEADERS = ("content-length", "connection", "transfer-encoding")  # the server's, of an answer
Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """What user code made of a request, with what it set of the response."""

    body: bytes
    content_type: str
    status: int = 200
    phrase: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the container's environment says."""

    model_dir: Path
    program: str
    default_accept: str
    handlers: str  # whose defaults: a key of DEFAULTS
    provided: str = ""  # the requirements that the environment was given before

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings; the names are those that AWS's containers read."""
        return cls(
            model_dir=Path(environment.get("SM_MODEL_DIR", MODEL_DIR)),
            # The SDK sends an empty one where the model brings its code.
            program=environment.get("SAGEMAKER_PROGRAM") or "inference.py",
            default_accept=environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", formats.JSON),
            handlers=environment.get("CLOCHE_HANDLERS", "pytorch"),
            provided=environment.get("CLOCHE_REQUIREMENTS", ""),
        )

    @property
    def code(self) -> Path:
        """The folder of user code within the model."""
        return self.model_dir / "code"


class InstallError(Exception):
    """pip could not install the requirements; the text ends with what pip says."""


def install_requirements(settings: Settings) -> None:
    """Install `code/requirements.txt`; InstallError when pip fails (the log has all of it)."""
    requirements = settings.code / "requirements.txt"
    if not requirements.is_file():
        return
    if settings.provided and Path(settings.provided).read_bytes() == requirements.read_bytes():
        print("The dependencies from requirements.txt are installed.", flush=True)
        return
    command = [sys.executable, "-m", "pip", "install", "-r", str(requirements)]
    if settings.model_dir != MODEL_DIR:  # outside a sandbox the interpreter is not ours
        packages = settings.model_dir.parent / "packages"
        command += ["--target", str(packages)]
        sys.path.insert(0, str(packages))
    print("Installing", requirements, flush=True)
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="", file=sys.stderr, flush=True)
    if done.returncode:
        errors = pip_words.errors(done.stderr).replace("\n", "; ")
        reason = errors or f"pip ended with {done.returncode}"
        raise InstallError(f"{requirements}: {reason}")


def user_module(settings: Settings) -> ModuleType | None:
    """Import the user's program from `code/`; None where the model brings no such file."""
    for folder in (settings.code / "lib", settings.code):
        if folder.is_dir():
            sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    name = settings.program.removesuffix(".py").replace("/", ".")
    if not (settings.code / settings.program).exists() and not importlib.util.find_spec(name):
        print(f"No {settings.program} in {settings.code}: the default handlers serve", flush=True)
        return None
    return importlib.import_module(name)


@dataclass
class Model:
    """A loaded model with its handlers; `answer` is not safe to call from two threads."""

    settings: Settings
    model: Any
    input_fn: Handler
    predict_fn: Handler
    output_fn: Handler
    transform_fn: Handler | None

    def answer(self, headers: Mapping[str, str], body: bytes) -> Answered:
        """Return what user code makes of one request; raises what user code raises.

        headers: named as they were sent.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        content_type = lower.get("content-type", formats.JSON)
        context = Context(str(self.settings.model_dir), headers, content_type)
        accept = lower.get("accept", "")
        if not accept or accept == "*/*":
            accept = self.settings.default_accept
        text = formats.media_type(content_type) in formats.TEXT_TYPES
        data: str | bytes = body.decode() if text else body
        if self.transform_fn is not None:
            result = run(self.transform_fn, (self.model, data, content_type, accept), context)
        else:
            try:
                decoded = run(self.input_fn, (data, content_type), context)
            except toolkits.unsupported() as error:
                return of_flask(toolkits.refused_type(error, 415), None)
            prediction = run(self.predict_fn, (decoded, self.model), context)
            try:
                result = run(self.output_fn, (prediction, accept), context)
            except toolkits.unsupported() as error:
                return of_flask(toolkits.refused_type(error, 406), None)
        if isinstance(result, tuple) and len(result) == 2:
            result, response_type = result
        else:
            response_type = None
        if (response := toolkits.response_of(result)) is not None:
            return of_flask(response, response_type)
        return answered(context, as_bytes(result), response_type, accept)


def answered(context: Context, body: bytes, named: str | None, accept: str) -> Answered:
    """Return the response: its type is the one named with it, else the one set on the context."""
    status, phrase = context.get_response_status(0)
    headers, response_type = [], named
    for name, value in context.get_response_headers(0).items():
        if name.lower() == "content-type":
            response_type = response_type or str(value)
        elif name.lower() not in OWN_HEADERS:
            headers.append((str(name), str(value)))
    return Answered(body, response_type or accept, status, phrase or "", tuple(headers))


def of_flask(response: toolkits.Response, named: str | None) -> Answered:
    """Return a response of flask's as ours; the type named with it holds."""
    headers = tuple(h for h in response.headers if h[0].lower() not in OWN_HEADERS)
    kind = named or response.content_type or formats.JSON
    return Answered(response.body, kind, response.status, "", headers)


def load(settings: Settings) -> Model:
    """Import the user's code and load the model; raises what user code raises."""
    module = user_module(settings)

    def find(name: str) -> Handler | None:
        return getattr(module, name, None)

    own = [find(name) for name in ("input_fn", "predict_fn", "output_fn")]
    transform_fn = find("transform_fn")
    if transform_fn is not None and any(own):
        raise ValueError(
            "Cannot use transform_fn implementation in conjunction with "
            "input_fn, predict_fn, and/or output_fn implementation"
        )
    context = Context(str(settings.model_dir))
    if (pre_model_fn := find("pre_model_fn")) is not None:
        run(pre_model_fn, (str(settings.model_dir),), context)
    defaults = DEFAULTS[settings.handlers]
    model_fn = find("model_fn") or defaults.model_fn
    model = run(model_fn, (str(settings.model_dir),), context)
    if transform_fn is None and (own[0] is None or own[1] is None):
        formats.library(defaults.library)  # the defaults need it: not in the first request
    if (warmup_fn := find("model_warmup_fn")) is not None:
        run(warmup_fn, (str(settings.model_dir), model), context)
    return Model(
        settings,
        model,
        own[0] or defaults.input_fn,
        own[1] or defaults.predict_fn,
        own[2] or defaults.output_fn,
        transform_fn,
    )


def run(function: Handler, arguments: tuple[Any, ...], context: Context) -> Any:
    """Call a handler, with the context if it takes one argument more; TypeError otherwise."""
    taken = len(inspect.signature(function).parameters)
    if taken == len(arguments):
        return function(*arguments)
    if taken == len(arguments) + 1:
        return function(*arguments, context)
    raise TypeError(f"{function.__name__} takes {taken} arguments but {len(arguments)} were given.")


def as_bytes(result: Any) -> bytes:
    """Return what goes on the wire: bytes as they are, str in UTF-8, anything else as JSON."""
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    return result.encode() if isinstance(result, str) else json.dumps(result).encode()


# ---------------------------------------------------------------------- the PyTorch defaults


def torch_or_explain(handler: str) -> Any:
    """Return torch; NotImplementedError asks for the handler where it is not installed."""
    torch = formats.library("torch")
    if torch is None:
        raise NotImplementedError(
            f"Please provide a {handler} implementation.\nSee documentation for {handler} at "
            + HANDLERS
        )
    return torch


def default_model_fn(model_dir: str) -> Any:
    """Load `model.pt`, or the only `.pt` or `.pth` file, saved as TorchScript."""
    torch = torch_or_explain("model_fn")
    path = os.path.join(model_dir, "model.pt")
    if not os.path.exists(path):
        files = [name for name in sorted(os.listdir(model_dir)) if name.endswith((".pt", ".pth"))]
        if len(files) != 1:
            raise ValueError(
                f"Exactly one .pth or .pt file is required for PyTorch models: {files}"
            )
        path = os.path.join(model_dir, files[0])
    try:
        return torch.jit.load(path, map_location=torch.device("cpu"))
    except RuntimeError as error:
        raise RuntimeError(
            f"Failed to load {path}. Please ensure model is saved using torchscript."
        ) from error


def default_input_fn(body: str | bytes, content_type: str) -> Any:
    """Decode json, csv, npy or npz; to a tensor where torch is installed (of floats from text)."""
    array = formats.decode(body, content_type)
    torch = formats.library("torch")
    if torch is None:
        return array
    if formats.media_type(content_type) in formats.TEXT_TYPES:
        return torch.FloatTensor(array)
    return torch.from_numpy(array)


def default_predict_fn(data: Any, model: Any) -> Any:
    """Call the model on the data, without gradients, in evaluation mode."""
    torch = torch_or_explain("predict_fn")
    with torch.no_grad():
        model.eval()
        return model(data)


def default_output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Encode the prediction in the first accepted type that has an encoder."""
    return formats.encode(prediction, accept)


# ---------------------------------------------------------------------- scikit-learn's


def no_model_fn(_model_dir: str) -> Any:
    """Raise: scikit-learn's container has no way of its own to load a model."""
    raise NotImplementedError(
        f"Please provide a model_fn implementation.\nSee documentation for model_fn at {HANDLERS}"
    )


def array_input_fn(body: str | bytes, content_type: str) -> Any:
    """Decode json, csv, npy or npz to an array; of float32 if it came as text, else as it is."""
    array = formats.decode_cells(body, content_type)
    if formats.media_type(content_type) in formats.TEXT_TYPES:
        return array.astype("float32")
    return array


def estimator_predict_fn(data: Any, model: Any) -> Any:
    """Call the estimator's `predict`."""
    return model.predict(data)


def cells_output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Encode the prediction in the first accepted type that has an encoder."""
    return formats.encode_cells(prediction, accept)


# ---------------------------------------------------------------------- Hugging Face's


def pipeline_model_fn(model_dir: str) -> Any:
    """Return the pipeline of the task that HF_TASK names, with the model's files."""
    task, transformers = os.environ.get("HF_TASK"), formats.library("transformers")
    if not task or transformers is None:
        raise NotImplementedError(
            "Please provide a model_fn implementation, or the task as HF_TASK.\n"
            f"See documentation for model_fn at {HANDLERS}"
        )
    return transformers.pipeline(task=task, model=model_dir, device="cpu")


def object_input_fn(body: str | bytes, content_type: str) -> Any:
    """Decode json as it is, without making an array of it; UnsupportedFormat for all else."""
    if formats.media_type(content_type) != formats.JSON:
        raise formats.UnsupportedFormat(content_type)
    return json.loads(body)


def pipeline_predict_fn(data: Any, model: Any) -> Any:
    """Call the pipeline on `inputs`, with the `parameters`, of what was sent."""
    if not isinstance(data, dict):
        return model(data)
    return model(data.get("inputs", data), **(data.get("parameters") or {}))


@dataclass(frozen=True)
class Defaults:
    """The handlers of one framework's containers, where user code brings none."""

    model_fn: Handler
    input_fn: Handler
    predict_fn: Handler
    library: str  # what they import
    output_fn: Handler = default_output_fn


DEFAULTS: Mapping[str, Defaults] = {
    "pytorch": Defaults(default_model_fn, default_input_fn, default_predict_fn, "torch"),
    "scikit-learn": Defaults(
        no_model_fn, array_input_fn, estimator_predict_fn, "numpy", cells_output_fn
    ),
    "huggingface": Defaults(
        pipeline_model_fn, object_input_fn, pipeline_predict_fn, "transformers"
    ),
}
