"""The model server run directly: no sandbox, plain handlers, the router's own client."""

import asyncio
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_workers import ping

from cloche.engine import Address
from cloche.engine.local.sockets import bound
from cloche.replicas.connection import HttpReply, connect, request_head
from cloche.replicas.pool import Broken
from cloche.services.sagemaker.serving.router import MAX_ANSWER
from cloche.testing.wheel import write_wheel

START_S = 30.0
PLAIN = """
import json
def model_fn(model_dir):
    return {"factor": 2}
def input_fn(body, content_type):
    print("got", type(body).__name__, content_type)
    return json.loads(body)
def predict_fn(data, model):
    return [x * model["factor"] for x in data]
"""


class Replica:
    """A model server in a process of its own."""

    def __init__(self, code: str | None, **environment: str) -> None:
        self.run = self.root = Path(tempfile.mkdtemp(prefix="srv"))
        self.model = self.run / "model"
        self.model.mkdir()
        if code is not None:
            (self.model / "code").mkdir()
            (self.model / "code" / "inference.py").write_text(textwrap.dedent(code))
        self.address = Address(path=str(self.run / "serve.sock"))
        self.environment = {
            **os.environ,
            "CLOCHE_FAILURE": str(self.run / "failure"),
            "SM_MODEL_DIR": str(self.model),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with bound(Path(self.address.path)) as given:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloche.runtime.serving"],
                env={**self.environment, "CLOCHE_SOCKET_FD": str(given.fileno())},
                stdout=(self.run / "log").open("wb"),
                stderr=subprocess.STDOUT,
                pass_fds=(given.fileno(),),
            )

    @property
    def log(self) -> str:
        return (self.run / "log").read_text()

    async def ready(self) -> "Replica":
        self.start()
        async with asyncio.timeout(START_S):
            while await ping(self.address, 2.0) != 200:
                assert self.process is not None and self.process.poll() is None, self.log
                await asyncio.sleep(0.02)
        return self

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, START_S)

    async def invoke(self, body: bytes, **headers: str) -> HttpReply:
        connection = await connect(self.address, MAX_ANSWER)
        try:
            named = [(name.replace("_", "-"), value) for name, value in headers.items()]
            head = request_head("POST", "/invocations", len(body), named)
            return await connection.send((head, body))
        finally:
            connection.close()

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.root)


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    made: list[Replica] = []
    yield made
    for replica in made:
        replica.clean()


async def exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)


def make(replicas: list[Replica], code: str | None = PLAIN, **environment: str) -> Replica:
    replica = Replica(code, **environment)
    replicas.append(replica)
    return replica


async def test_handlers_ping_and_default_output(replicas: list[Replica]) -> None:
    replica = await make(replicas).ready()
    answer = await replica.invoke(b"[1, 2]", Content_Type="application/json")
    assert (answer.status, json.loads(answer.body)) == (200, [2, 4])
    assert answer.headers["content-type"] == "application/json"
    assert "got str application/json" in replica.log
    answer = await replica.invoke(b"[1]", Content_Type="application/octet-stream", Accept="*/*")
    assert answer.body == b"[2]"
    assert "got bytes application/octet-stream" in replica.log


async def test_connection_is_kept_and_other_paths_are_refused(replicas: list[Replica]) -> None:
    replica = await make(replicas).ready()
    connection = await connect(replica.address, MAX_ANSWER)
    for _ in range(3):
        head = request_head("POST", "/invocations", 3, [("Content-Type", "application/json")])
        assert (await connection.send((head, b"[3]"))).body == b"[6]"
    assert (await connection.send((request_head("GET", "/ping", 0, []), b""))).status == 200
    assert (await connection.send((request_head("GET", "/nope", 0, []), b""))).status == 404
    assert (await connection.send((request_head("GET", "/invocations", 0, []), b""))).status == 405
    connection.close()


async def test_socket_path_may_be_long(replicas: list[Replica]) -> None:
    replica = make(replicas)
    replica.run = replica.run / ("x" * 120)
    replica.run.mkdir()
    await replica.ready()
    assert (await replica.invoke(b"[1]", Content_Type="application/json")).body == b"[2]"


async def test_exception_is_500_with_message_and_traceback(replicas: list[Replica]) -> None:
    code = PLAIN + "\ndef predict_fn(data, model):\n    raise KeyError('no such breed')\n"
    replica = await make(replicas, code).ready()
    answer = await replica.invoke(b"[1]", Content_Type="application/json")
    assert answer.status == 500
    first, *trace = answer.body.decode().splitlines()
    assert first == "'no such breed'"
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "KeyError: 'no such breed'"
    assert len(trace) == 4 and f"{replica.model}/code/inference.py" in trace[1], "no frame of ours"
    assert not any("cloche/runtime" in line for line in replica.log.splitlines())
    assert "KeyError: 'no such breed'" in replica.log
    # the replica goes on
    assert (await replica.invoke(b"not json", Content_Type="application/json")).status == 500


async def test_transform_fn_tuple_and_context(replicas: list[Replica]) -> None:
    code = """
    def model_fn(model_dir, context):
        return context.system_properties["model_dir"]
    def transform_fn(model, body, content_type, accept, context):
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "a\\r\\nb")
        sent = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
        return f"{model} {sent} {accept}", "text/plain"
    """
    replica = await make(replicas, code, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv").ready()
    answer = await replica.invoke(
        b"x", Content_Type="image/jpeg", X_Amzn_SageMaker_Custom_Attributes="trace-1"
    )
    assert answer.body.decode() == f"{replica.model} trace-1 text/csv"
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "a  b"


CONTEXT = """
import json
def model_fn(model_dir, context):
    context.set_response_status(code=500)  # there is no request yet
    return [context.request_processor, context.get_request_id(0), context.model_name]
def input_fn(body, content_type, context):
    processor, name = context.request_processor[0], "X-Amzn-SageMaker-Custom-Attributes"
    context.metrics.add_counter("n", 1)
    context.metrics.add_time("t", 2.5)
    context.metrics.add_size("s", 3, unit="GB")
    context.metrics.add_percent("p", 4)
    context.metrics.add_error("e", "bad")
    context.metrics.add_metric("m", 5, unit="count", metric_type="gauge")
    found = context.metrics.add_metric_to_cache("own", "ms", ["a"], "histogram")
    context.metrics.get_metric("own", "histogram").add_or_update(6, ["b"])
    found.add_or_update(7)
    context.set_response_status(code=201, phrase="Well\\r\\nmade")
    context.set_response_header(idx=0, key="x-one", value="1")
    context.set_response_header(0, "Content-Length", "9")
    processor.add_response_property("x-two", 2)
    properties = processor.get_request_properties()
    return [
        properties["Content-Type"], properties.get("content-type"), properties["body"],
        properties.get(name), processor.get_request_property(name),
        context.get_all_request_header(0)[name], context.get_request_header(0, name),
        context.get_request_header(0, name.lower()), context.get_request_header(0, "No"),
        len(context.get_request_id()), context.manifest["model"]["modelName"],
        context.system_properties["batch_size"], context.system_properties["gpu_id"],
        list(context.get_response_status(0)), dict(context.get_response_headers(0)),
        processor.get_response_header("x-one"), context.get_response_content_type(0),
    ]
def predict_fn(data, model): return [data, model]
def output_fn(data, accept, context):
    context.set_response_content_type(0, "text/x-own")
    return json.dumps(data)
"""


async def test_context_is_the_model_servers(replicas: list[Replica]) -> None:
    replica = await make(replicas, CONTEXT).ready()
    sent = {"Content_Type": "application/json", "X_Amzn_SageMaker_Custom_Attributes": "threshold=1"}
    answer = await replica.invoke(b"[1]", **sent)
    assert answer.status == 201, answer.body
    data, loaded = json.loads(answer.body)
    assert loaded == [None, None, "model"]
    assert data == [
        "application/json", None, {"content-type": "application/json"},
        "threshold=1", "threshold=1", "threshold=1", "threshold=1", None, None,
        36, "model", 1, None, [201, "Well\r\nmade"],
        {"x-one": "1", "Content-Length": "9", "x-two": 2}, "1", None,
    ]  # fmt: skip
    assert answer.headers["content-type"] == "text/x-own"
    assert (answer.headers["x-one"], answer.headers["x-two"]) == ("1", "2")
    lines = [line for line in replica.log.splitlines() if line.startswith("[METRICS]")]
    model = "|#ModelName:model,Level:Model|#type:"
    assert [line.split("|#hostname:")[0] for line in lines] == [
        f"[METRICS]n.Count:1{model}COUNTER",
        f"[METRICS]t.Milliseconds:2.5{model}GAUGE",
        f"[METRICS]s.Gigabytes:3{model}GAUGE",
        f"[METRICS]p.Percent:4{model}GAUGE",
        "[METRICS]e.unit:bad|#Level:Error|#type:COUNTER",
        f"[METRICS]m.Count:5{model}GAUGE",
        "[METRICS]own.Milliseconds:6|#a:b|#type:HISTOGRAM",
        "[METRICS]Failed to update metric with name:own and dimensions:  with value: 7: "
        "Dimension values: [] should correspond to Dimension names: ['a']",
    ]
    # The next request's context is a new one.
    again = await replica.invoke(b"[1]", **sent)
    assert json.loads(again.body)[0][14] == data[14]


async def test_status_is_of_the_request_that_set_it(replicas: list[Replica]) -> None:
    code = """
    def model_fn(model_dir): return None
    def transform_fn(model, body, content_type, accept, context):
        if body == b"bad":
            context.request_processor[0].report_status(422, "Bad")
        return context.get_response_status(0)[1] or "none"
    """
    replica = await make(replicas, code).ready()
    for body, status, said in ((b"bad", 422, b"Bad"), (b"good", 200, b"none")):
        answer = await replica.invoke(body, Content_Type="text/x")
        assert (answer.status, answer.body) == (status, said)


async def test_program_lib_and_warmup(replicas: list[Replica]) -> None:
    code = """
    import helper
    calls = []
    def pre_model_fn(model_dir): calls.append("pre")
    def model_fn(model_dir): calls.append("model"); return helper.NAME
    def model_warmup_fn(model_dir, model): calls.append("warm " + model)
    def transform_fn(model, body, content_type, accept): return ",".join(calls)
    """
    replica = make(replicas, code, SAGEMAKER_PROGRAM="serve_it.py")
    (replica.model / "code/inference.py").rename(replica.model / "code/serve_it.py")
    (replica.model / "code/lib").mkdir()
    (replica.model / "code/lib/helper.py").write_text("NAME = 'lib'")
    await replica.ready()
    assert (await replica.invoke(b"", Content_Type="text/csv")).body == b"pre,model,warm lib"


async def test_transform_fn_beside_others_fails(replicas: list[Replica]) -> None:
    replica = make(replicas, PLAIN + "\ndef transform_fn(m, b, c, a): pass\n")
    replica.start()
    assert await replica.ended() == 1
    assert "Cannot use transform_fn implementation in conjunction with" in replica.log


async def test_failing_model_fn_leaves_its_traceback(replicas: list[Replica]) -> None:
    replica = make(replicas, "def model_fn(model_dir):\n    raise OSError('no weights here')\n")
    replica.start()
    assert await replica.ended() == 1
    failure = (replica.run / "failure").read_text()
    trace, where = failure.strip().rsplit("\n", 1)
    assert where == "inference.py, line 2, in model_fn: OSError: no weights here"
    assert trace.strip().splitlines()[-1] == "OSError: no weights here"
    assert trace.strip() in replica.log


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("import helper\n", "helper.py, line 2, in <module>: ZeroDivisionError: division by zero"),
        ("\ndef model_fn(:\n", "inference.py, line 2: SyntaxError: invalid syntax"),
        ("import nothing_there\n", "inference.py, line 1, in <module>: ModuleNotFoundError: "),
        (
            "def model_fn(model_dir):\n    import json\n    return json.loads('{')\n",
            "inference.py, line 3, in model_fn: json.decoder.JSONDecodeError: Expecting ",
        ),
    ],
)
async def test_script_that_fails_says_in_which_line(
    replicas: list[Replica], code: str, where: str
) -> None:
    replica = make(replicas, code)
    (replica.model / "code/helper.py").write_text("\n1 / 0\n")
    replica.start()
    assert await replica.ended() == 1
    failure = (replica.run / "failure").read_text().strip()
    assert failure.splitlines()[-1].startswith(where)
    assert "cloche" not in failure and "importlib" not in failure, "the user's frames alone"


async def test_requirements_are_installed_first(replicas: list[Replica], tmp_path: Path) -> None:
    replica = make(replicas, "import not_there\ndef model_fn(d): return 1\n")
    (replica.model / "code/requirements.txt").write_text("--no-index\nnot-there==1.0\n")
    replica.start()
    assert await replica.ended() == 1
    reason = (replica.run / "failure").read_text().splitlines()[-1]
    assert reason.startswith("cloche.runtime.serving_handlers.InstallError: ")
    assert reason.endswith("ERROR: No matching distribution found for not-there==1.0")
    assert "No matching distribution found for not-there==1.0" in replica.log


async def test_requirements_outside_a_sandbox(replicas: list[Replica], tmp_path: Path) -> None:
    """The interpreter is not ours there: packages go to a folder of the replica."""
    code = """
    import clochetestwheel
    def model_fn(model_dir): return clochetestwheel
    def transform_fn(model, body, content_type, accept): return f"{model.VALUE} {model.__file__}"
    """
    write_wheel(tmp_path, "clochetestwheel", "1.0", "VALUE = 42\n")
    replica = make(replicas, code, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    (replica.model / "code/requirements.txt").write_text("clochetestwheel\n")
    answer = await (await replica.ready()).invoke(b"x", Content_Type="text/plain")
    assert answer.body == f"42 {replica.run}/packages/clochetestwheel.py".encode()
    assert importlib.util.find_spec("clochetestwheel") is None


async def test_requirements_that_were_provided(replicas: list[Replica], tmp_path: Path) -> None:
    """What the environment was given before is not installed once more; anything else is."""
    wanted = "--no-index\nnot-there==1.0\n"
    for given, code in ((wanted, 0), (wanted + "\n", 1)):
        (tmp_path / "given").write_text(given)
        replica = make(replicas, PLAIN, CLOCHE_REQUIREMENTS=str(tmp_path / "given"))
        (replica.model / "code/requirements.txt").write_text(wanted)
        if code == 0:
            await replica.ready()
            assert "The dependencies from requirements.txt are installed." in replica.log
        else:
            replica.start()
            assert await replica.ended() == 1


async def test_sigterm_finishes_what_was_accepted(replicas: list[Replica]) -> None:
    code = """
    import pathlib, time
    def model_fn(model_dir): return pathlib.Path(model_dir)
    def transform_fn(model, body, content_type, accept):
        (model / "started").touch()
        while not (model / "go").exists():
            time.sleep(0.01)
        return "done"
    """
    replica = await make(replicas, code).ready()
    assert replica.process is not None
    pending = asyncio.ensure_future(replica.invoke(b"x", Content_Type="text/plain"))
    async with asyncio.timeout(START_S):
        await exists(replica.model / "started")
        assert await ping(replica.address, 2.0) == 200  # while it predicts
        replica.process.send_signal(signal.SIGTERM)
        (replica.model / "go").touch()
        assert (await pending).body == b"done"
    assert await replica.ended() == 0


async def test_stuck_prediction_ends_the_process(replicas: list[Replica]) -> None:
    code = """
    import time
    def model_fn(model_dir): return None
    def transform_fn(model, body, content_type, accept): time.sleep(3600)
    """
    replica = await make(replicas, code, SAGEMAKER_MODEL_SERVER_TIMEOUT="0.2").ready()
    with pytest.raises(Broken):
        await replica.invoke(b"x", Content_Type="text/plain")
    assert await replica.ended() == 70
    assert "Worker unresponsive for 0.2 s" in replica.log


async def test_default_formats(replicas: list[Replica]) -> None:
    numpy = pytest.importorskip("numpy")
    code = """
    import numpy
    def model_fn(model_dir): return None
    def input_fn(body, content_type):
        from cloche.runtime.serving_formats import decode
        return decode(body, content_type)
    def predict_fn(data, model): return data * 2
    """
    replica = await make(replicas, code).ready()
    csv = await replica.invoke(b"1,2\n3,4\n", Content_Type="text/csv", Accept="text/csv")
    assert (csv.body, csv.headers["content-type"]) == (b"2,4\n6,8\n", "text/csv")
    plain = await replica.invoke(b"[[1, 2]]", Content_Type="application/json")
    assert plain.body == b"[[2, 4]]"
    npy = await replica.invoke(
        plain_npy(numpy, [1, 2]), Content_Type="application/x-npy", Accept="application/x-npy"
    )
    assert npy.body == plain_npy(numpy, [2, 4])
    odd = await replica.invoke(b"[1]", Content_Type="application/json", Accept="image/png")
    assert odd.status == 500
    assert odd.body.startswith(b"Content type image/png is not supported by this framework.")


def plain_npy(numpy: ModuleType, values: Any) -> bytes:
    stream = io.BytesIO()
    numpy.save(stream, values)
    return stream.getvalue()


async def test_scikit_learn_defaults(replicas: list[Replica]) -> None:
    """Text is cast to float32, and fails where it is no number; arrays are taken as they are."""
    numpy = pytest.importorskip("numpy")
    code = """
    class Echo:
        def predict(self, x): return [str(x.dtype), x.tolist()]
    def model_fn(model_dir): return Echo()
    """
    replica = await make(replicas, code, CLOCHE_HANDLERS="scikit-learn").ready()
    for values in ([["red", "S"]], [[1700000123]], [[0.1]], [[True]]):
        array = numpy.array(values)
        answer = await replica.invoke(plain_npy(numpy, array), Content_Type="application/x-npy")
        assert json.loads(answer.body) == [str(array.dtype), values]
    for body, kind, values in (
        (b"[[1, 2]]", "application/json", [[1.0, 2.0]]),
        (b"1,2\n3,4\n", "text/csv", [[1.0, 2.0], [3.0, 4.0]]),
        (b'"1",2', "text/csv; charset=utf-8", [1.0, 2.0]),
    ):
        answer = await replica.invoke(body, Content_Type=kind)
        assert json.loads(answer.body) == ["float32", values]
    for body, cell in ((b"red,S", "red"), (b"x,y\n1,2", "x"), (b"1,", "")):
        answer = await replica.invoke(body, Content_Type="text/csv")
        assert answer.status == 500
        assert answer.body.startswith(b"could not convert string to float: ")
        assert repr(cell).encode() in answer.body.splitlines()[0]


async def test_scikit_learn_quotes_csv(replicas: list[Replica]) -> None:
    numpy = pytest.importorskip("numpy")
    code = """
    class Echo:
        def predict(self, x): return x
    def model_fn(model_dir): return Echo()
    """
    replica = await make(replicas, code, CLOCHE_HANDLERS="scikit-learn").ready()
    for values, said in (
        ([["a,b", "c"]], b'"a,b",c\n'),
        ([0.1, 2.0], b"0.1\n2.0\n"),
        (numpy.array([0.1], dtype="float32"), b"0.1\n"),
    ):
        sent = plain_npy(numpy, values)
        answer = await replica.invoke(sent, Content_Type="application/x-npy", Accept="text/csv")
        assert (answer.body, answer.headers["content-type"]) == (said, "text/csv")


@pytest.mark.torch
async def test_pytorch_defaults(replicas: list[Replica]) -> None:
    torch = pytest.importorskip("torch")
    replica = make(replicas, None)
    layer = torch.nn.Linear(2, 1)
    torch.jit.script(layer).save(str(replica.model / "model.pt"))
    await replica.ready()
    expected = layer(torch.FloatTensor([[1.0, 2.0]])).tolist()
    answer = await replica.invoke(b"[[1.0, 2.0]]", Content_Type="application/json")
    assert json.loads(answer.body) == [pytest.approx(expected[0])]
    csv = await replica.invoke(b"1.0,2.0\n1.0,2.0\n", Content_Type="text/csv")
    assert json.loads(csv.body) == [pytest.approx(expected[0])] * 2
    for text, kind in ((b"red,S", "str_"), (b"x,y\n1,2", "str_"), (b"1,red\n2,blue", "void")):
        refused = await replica.invoke(text, Content_Type="text/csv")
        assert refused.status == 500
        assert refused.body.startswith(f"can't convert np.ndarray of type numpy.{kind}.".encode())


@pytest.mark.torch
async def test_two_models_are_too_many_for_the_default(replicas: list[Replica]) -> None:
    pytest.importorskip("torch")
    replica = make(replicas, None)
    for name in ("a.pt", "b.pth"):
        (replica.model / name).touch()
    replica.start()
    assert await replica.ended() == 1
    text = "Exactly one .pth or .pt file is required for PyTorch models: ['a.pt', 'b.pth']"
    assert text in (replica.run / "failure").read_text()


async def test_hugging_face_defaults(replicas: list[Replica]) -> None:
    """What a pipeline is asked, with one of the user's own in the place of transformers'."""
    code = """
        def model_fn(model_dir):
            return lambda inputs, top_k=1: [{"label": str(inputs), "top_k": top_k}]
    """
    empty = {"SAGEMAKER_PROGRAM": ""}  # as the SDK sends it, for a model that brings its code
    replica = await make(replicas, code, CLOCHE_HANDLERS="huggingface", **empty).ready()
    for sent, inputs, top_k in (
        ({"inputs": "good", "parameters": {"top_k": 2}}, "good", 2),
        ({"inputs": ["a", "b"]}, "['a', 'b']", 1),
        ({"question": "x"}, "{'question': 'x'}", 1),
        ([1, 2], "[1, 2]", 1),
    ):
        answer = await replica.invoke(json.dumps(sent).encode(), Content_Type="application/json")
        assert json.loads(answer.body) == [{"label": inputs, "top_k": top_k}]
    refused = await replica.invoke(b"a,b", Content_Type="text/csv")
    assert refused.status == 500
    assert refused.body.startswith(b"Content type text/csv is not supported by this framework.")


async def test_hugging_face_needs_a_task(replicas: list[Replica]) -> None:
    replica = make(replicas, None, CLOCHE_HANDLERS="huggingface", HF_TASK="")
    replica.start()
    assert await replica.ended() == 1
    text = "Please provide a model_fn implementation, or the task as HF_TASK."
    assert text in (replica.run / "failure").read_text()
