"""The story itself, told to the platform through boto3 and the SageMaker SDK alone.

Runs as `cloche run -- python -m cloche.tour PLAN`; nothing in it knows that it does not talk to
AWS.
"""

import io
import json
import random
import shutil
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from PIL import Image
from rich.console import Console
from sagemaker.pytorch.estimator import PyTorch
from sagemaker.pytorch.model import PyTorchModel
from sagemaker.session import Session, get_execution_role

from cloche.tour.answers import ask
from cloche.tour.digits import write_digits
from cloche.tour.errors import TourError
from cloche.tour.facts import Epoch, Facts
from cloche.tour.folder import ImageFolder, read_folder
from cloche.tour.hints import next_steps, where_to_look
from cloche.tour.journal import Journal
from cloche.tour.observations import cpu_use, memory_use
from cloche.tour.plan import Plan
from cloche.tour.report import print_report, write_page
from cloche.tour.upload import THREADS, upload_folder

FRAMEWORK: dict[str, Any] = {"framework_version": "2.6.0", "py_version": "py312"}
METRICS = [
    {"Name": "train:loss", "Regex": r"Training Loss: ([0-9.]+)"},
    {"Name": "train:accuracy", "Regex": r"Training Accuracy: ([0-9.]+)"},
    {"Name": "valid:loss", "Regex": r"Validation Loss: ([0-9.]+)"},
    {"Name": "valid:accuracy", "Regex": r"Validation Accuracy: ([0-9.]+)"},
    {"Name": "test:loss", "Regex": r"Testing Loss: ([0-9.]+)"},
    {"Name": "test:accuracy", "Regex": r"Testing Accuracy: ([0-9.]+)"},
]
ASKED = 7  # pictures; the first one twice
SMALL = 128  # pixels: pictures no larger than this are trained on at 96 x 96, others at 224 x 224


class Story:
    """The steps, in order; each leaves what the next ones need."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan = plan
        self.console = console
        self.journal = Journal(console)
        self.stamp = datetime.fromtimestamp(plan.started).strftime("%Y%m%d-%H%M%S")
        self.bucket = f"dog-breeds-{self.stamp}"
        self.boto = boto3.Session()
        self.s3 = self.boto.client("s3", config=Config(max_pool_connections=THREADS))
        self.session = Session(boto_session=self.boto, default_bucket=self.bucket)
        self.client = self.session.sagemaker_client
        self.facts = Facts(title=plan.data_name, day=time.strftime("%Y-%m-%d %H:%M"))
        self.source = Path(tempfile.mkdtemp(prefix="dog-breeds-")) / "dog_breeds"
        self.job: str | None = None
        self.endpoint: str | None = None

    def tell(self) -> None:
        """Run all steps and write the report."""
        # The SDK refuses to package code from some system folders (/root among them).
        shutil.copytree(self.plan.source, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        role_of: Callable[[Session], str] = get_execution_role
        self.role = role_of(self.session)
        self.facts.starting_s = time.time() - self.plan.started
        folder = self.upload()
        self.train(folder)
        self.deploy()
        self.question(folder)
        self.report()

    def upload(self) -> ImageFolder:
        """Step 1: an image folder in a bucket."""
        with self.journal.step("Pictures in a bucket") as step:
            folder = self.find_data()
            region = self.boto.region_name
            place = {} if region == "us-east-1" else {"LocationConstraint": region}
            self.s3.create_bucket(
                Bucket=self.bucket, **({"CreateBucketConfiguration": place} if place else {})
            )
            sent = upload_folder(
                self.s3, self.bucket, "data", folder.root, folder.files, self.console
            )
            step.facts += [
                f"{self.plan.data_name}: {folder.summary}",
                f"{len(folder.files):,} objects, {sent / 1e6:.1f} MB in s3://{self.bucket}/data/",
            ]
        self.facts.data = folder.summary
        self.facts.chance = 1 / len(folder.classes)
        return folder

    def find_data(self) -> ImageFolder:
        """Return the image folder: the one given, or the digits, written if need be."""
        if self.plan.data is not None:
            return read_folder(Path(self.plan.data))
        root = self.plan.folder / "digits"
        if not root.exists():
            unfinished = root.with_name("digits.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            write_digits(unfinished)
            unfinished.rename(root)
        return read_folder(root)

    def train(self, folder: ImageFolder) -> None:
        """Step 2: a training job, its log on the terminal."""
        with self.journal.step("A training job") as step:
            small = is_small(folder)
            hyperparameters: dict[str, Any] = {
                "epochs": self.plan.epochs,
                "batch_size": 32,
                "learning_rate": 0.01 if small else 0.001,
                "image_size": 96 if small else 224,
            }
            estimator = PyTorch(
                entry_point="hpo.py",
                source_dir=str(self.source),
                role=self.role,
                instance_count=1,
                instance_type="ml.m5.2xlarge",
                hyperparameters=hyperparameters,
                metric_definitions=METRICS,
                output_path=f"s3://{self.bucket}/training",
                sagemaker_session=self.session,
                **FRAMEWORK,
            )
            estimator.fit({"training": f"s3://{self.bucket}/data"}, wait=False)
            job: Any = estimator.latest_training_job
            self.job = job.name
            job.wait(logs="All")
            description = self.client.describe_training_job(TrainingJobName=self.job)
            self.read_history()
            last, took = self.facts.epochs[-1], description["TrainingTimeInSeconds"]
            step.facts += [
                f"Job {self.job}: {took} s of training with {self.facts.backbone}",
                f"Accuracy: validation {last.valid_accuracy:.1%}, "
                f"test {self.facts.test_accuracy:.1%} (guessing: {self.facts.chance:.1%})",
            ]
        self.model_data = estimator.model_data

    def read_history(self) -> None:
        """Take what the script left in its output: losses and accuracies by epoch."""
        history = json.loads(self.output_file("output/output.tar.gz", "history.json"))
        self.facts.backbone = history["backbone"]
        self.facts.epochs = [
            Epoch(
                number=epoch["epoch"],
                train_loss=epoch["train_loss"],
                train_accuracy=epoch["train_accuracy"],
                valid_loss=epoch["valid_loss"],
                valid_accuracy=epoch["valid_accuracy"],
            )
            for epoch in history["epochs"]
        ]
        self.facts.test_loss = history["test"]["loss"]
        self.facts.test_accuracy = history["test"]["accuracy"]

    def output_file(self, archive: str, name: str) -> bytes:
        """Return one file of an archive that the job left in the bucket."""
        body = self.s3.get_object(Bucket=self.bucket, Key=f"training/{self.job}/{archive}")["Body"]
        with tarfile.open(fileobj=io.BytesIO(body.read())) as tar:
            member = next(m for m in tar if Path(m.name).name == name)
            content = tar.extractfile(member)
            if content is None:
                raise TourError(f"{archive} of {self.job} has {name}, but not as a file")
            return content.read()

    def deploy(self) -> None:
        """Step 3: an endpoint that is InService."""
        with self.journal.step("An endpoint") as step:
            model = PyTorchModel(
                model_data=self.model_data,
                entry_point="inference.py",
                source_dir=str(self.source),
                role=self.role,
                sagemaker_session=self.session,
                **FRAMEWORK,
            )
            self.endpoint = f"pytorch-inference-{self.stamp}"
            model.deploy(
                initial_instance_count=1,
                instance_type="ml.m5.large",
                endpoint_name=self.endpoint,
            )
            self.console.print()
            status = self.client.describe_endpoint(EndpointName=self.endpoint)["EndpointStatus"]
            step.facts.append(f"Endpoint {self.endpoint} is {status}")

    def question(self, folder: ImageFolder) -> None:
        """Step 4: photographs, as bytes and by address."""
        classes = json.loads(self.output_file("output/model.tar.gz", "model.json"))["classes"]
        with self.journal.step("A question") as step:
            pictures = choose(folder, random.Random(self.stamp))
            keys = [f"data/{path.relative_to(folder.root).as_posix()}" for path in pictures]
            url = self.s3.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": keys[0]}, ExpiresIn=600
            )
            runtime = self.session.sagemaker_runtime_client
            labels = [folder.label(path) for path in pictures]
            answers, lines = ask(runtime, str(self.endpoint), pictures, labels, classes, url)
            step.facts += lines
        self.facts.answers = answers

    def report(self) -> None:
        """Step 5: what came of it, on the terminal and as a page."""
        with self.journal.step("The report") as step:
            cloudwatch = self.boto.client("cloudwatch")
            description = self.client.describe_training_job(TrainingJobName=self.job)
            self.facts.cpu = cpu_use(cloudwatch, description)
            self.facts.memory = memory_use(cloudwatch, description)
            page = self.plan.folder / f"report-{self.stamp}.html"
            self.facts.kept = self.kept(page)
            self.facts.next_steps = next_steps(self.plan, self.bucket, str(self.job))
            self.facts.steps = [(s.title, s.seconds, s.facts) for s in self.journal.steps[:-1]]
            self.facts.seconds = time.time() - self.plan.started
            write_page(self.facts, page)
            step.facts.append(f"{page}")
        print_report(self.facts, self.console)

    def kept(self, page: Path) -> dict[str, str]:
        """Return where everything is: for the report."""
        return {
            "This report": str(page),
            "Pictures": f"s3://{self.bucket}/data/",
            "Trained model": str(self.model_data),
            "Losses by epoch": f"s3://{self.bucket}/training/{self.job}/output/output.tar.gz",
            "Training log": f"/aws/sagemaker/TrainingJobs, {self.job}/algo-1-…",
            "Endpoint": str(self.endpoint),
            "Home folder": self.plan.home,
        }

    def stop_what_runs(self) -> None:
        """Ask the training job to stop if it is under way: nobody waits for it any more."""
        if self.job is None:
            return
        description = self.client.describe_training_job(TrainingJobName=self.job)
        if description["TrainingJobStatus"] == "InProgress":
            self.client.stop_training_job(TrainingJobName=self.job)

    def explain(self, error: BaseException) -> None:
        """Say which step failed, why, and where to look."""
        steps = self.journal.steps
        where = f"Step {steps[-1].number} ({steps[-1].title})" if steps else "The start"
        reason = str(error) or type(error).__name__
        self.console.print(f"\n[red bold]{where} failed:[/] ", end="")
        self.console.print(reason, markup=False, highlight=False, soft_wrap=True)
        for purpose, place in where_to_look(self.plan, self.job, self.endpoint):
            for line in (f"{purpose}:", f"   {place}"):
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def choose(folder: ImageFolder, draw: random.Random) -> list[Path]:
    """Return some test pictures to ask about, of as many classes as can be."""
    pictures = draw.sample(folder.pictures["test"], len(folder.pictures["test"]))
    turn: Counter[str] = Counter()
    rounds = []
    for picture in pictures:
        label = folder.label(picture)
        rounds.append((turn[label], picture))
        turn[label] += 1
    rounds.sort(key=lambda pair: pair[0])
    return [picture for _, picture in rounds[:ASKED]]


def is_small(folder: ImageFolder) -> bool:
    """Tell whether the pictures are so small that training at 224 pixels would be waste."""
    sides = []
    for path in folder.pictures["train"][:: max(1, len(folder.pictures["train"]) // 20)]:
        with Image.open(path) as image:
            sides.append(min(image.size))
    return sorted(sides)[len(sides) // 2] <= SMALL


def main(argument: str) -> int:
    """Tell the story of the plan; returns the exit code."""
    plan = Plan.from_json(argument)
    console = Console()
    story = Story(plan, console)
    console.print(f"[bold]Cloche tour[/]: {plan.data_name}, in {plan.home}", highlight=False)
    try:
        story.tell()
    except KeyboardInterrupt:
        story.stop_what_runs()
        return 130
    except Exception as error:  # whatever failed, the reader is told which step, and why
        story.explain(error)
        return 1
    finally:
        shutil.rmtree(story.source.parent, ignore_errors=True)
    return 0
