"""The story itself: what the tour asks of the platform, through boto3 and the SageMaker SDK alone.

Runs as `cloche run -- python -m cloche.tour PLAN`; nothing in it knows that it does not talk to
AWS.
"""

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
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

from cloche.tour import plain, tuning
from cloche.tour.answers import ask
from cloche.tour.digits import write_digits
from cloche.tour.errors import TourError
from cloche.tour.facts import Facts, PlainRun, Trained, Tuning
from cloche.tour.folder import ImageFolder, read_folder
from cloche.tour.hints import next_steps, where_to_look
from cloche.tour.jobs import METRICS, file_in, follow, trained
from cloche.tour.journal import Journal, duration
from cloche.tour.observations import cpu_use, memory_use
from cloche.tour.plan import TourPlan
from cloche.tour.report import print_report, write_page
from cloche.tour.upload import THREADS, upload_folder

FRAMEWORK: dict[str, Any] = {"framework_version": "2.6.0", "py_version": "py312"}
INSTANCE_TYPE = "ml.m5.2xlarge"
ASKED = 24  # pictures of each endpoint; the first one twice
SMALL = 128  # pixels: pictures no larger than this are trained on at 96 x 96, others at 224 x 224
LOOK_S = 1.0


class Story:
    """The steps, in order; each leaves what the next ones need."""

    def __init__(self, plan: TourPlan, console: Console) -> None:
        self.plan = plan
        self.console = console
        self.journal = Journal(console)
        self.stamp = datetime.fromtimestamp(plan.started).strftime("%Y%m%d-%H%M%S")
        self.bucket = f"{plan.prefix}-{self.stamp}"
        self.boto = boto3.Session()
        self.s3 = self.boto.client("s3", config=Config(max_pool_connections=THREADS))
        self.session = Session(boto_session=self.boto, default_bucket=self.bucket)
        self.client = self.session.sagemaker_client
        self.source = Path(tempfile.mkdtemp(prefix="cloche-tour-")) / "dog_breeds"
        self.search: str | None = None  # the tuning job
        self.job: str | None = None  # the training job that is under way, or was last
        self.endpoint: str | None = None

    def tell(self) -> None:
        """Run all steps and write the report."""
        # The SDK refuses to package code from some system folders (/root among them).
        shutil.copytree(self.plan.source, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        role_of: Callable[[Session], str] = get_execution_role
        self.role = role_of(self.session)
        starting_s = time.time() - self.plan.started
        folder = self.upload()
        self.image_size = 96 if is_small(folder) else 224
        found = self.tune()
        models = [self.train(found, 1), self.train(found, self.plan.size.instances)]
        self.deploy(models)
        self.question(folder, models)
        outside = self.plain_machine(folder)
        facts = Facts(
            title=self.plan.data_name,
            day=time.strftime("%Y-%m-%d %H:%M"),
            tuning=found,
            models=models,
            plain=outside,
            data=folder.summary,
            starting_s=starting_s,
            chance=1 / len(folder.classes),
        )
        self.report(facts)

    def upload(self) -> ImageFolder:
        """An image folder in a bucket."""
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

    def estimator(
        self, instances: int, hyperparameters: dict[str, Any], checkpoints: str | None = None
    ) -> PyTorch:
        """Return the training of hpo.py; checkpoints: where its jobs share what they computed."""
        every: dict[str, Any] = {"epochs": self.plan.size.epochs, "image_size": self.image_size}
        return PyTorch(
            entry_point="hpo.py",
            source_dir=str(self.source),
            role=self.role,
            instance_count=instances,
            instance_type=INSTANCE_TYPE,
            hyperparameters=every | hyperparameters,
            metric_definitions=METRICS,
            output_path=f"s3://{self.bucket}/training",
            checkpoint_s3_uri=checkpoints,
            sagemaker_session=self.session,
            **FRAMEWORK,
        )

    def tune(self) -> Tuning:
        """A tuning job, its trials in a table."""
        with self.journal.step("A tuning job") as step:
            low, high = tuning.LEARNING_RATES
            sizes = ", ".join(map(str, tuning.BATCH_SIZES))
            self.say(
                f"{self.plan.size.trials} trials, {tuning.PARALLEL} at a time, Bayesian: "
                f"learning rate from {low} to {high}, batch of {sizes}"
            )
            self.say("Each trial uses all CPUs of this machine; the others are pending meanwhile.")
            name = f"{self.plan.prefix}-{self.stamp}"
            estimator = self.estimator(1, {}, f"s3://{self.bucket}/features")
            tuning.start(estimator, self.inputs, self.plan.size.trials, name)
            self.search = name
            self.say(f"Tuning job {name} is running")
            found = tuning.watch(self.client, name, self.plan.size.epochs, self.console)
            best = found.best
            step.facts += [
                f"Tuning job {name}: {len(found.trials)} trials, {found.early} stopped early, "
                f"{found.failed} failed, in {duration(found.seconds)}",
                f"Best: trial {best.number} with learning rate {best.learning_rate:.5f} and batch "
                f"{best.batch_size}; {tuning.OBJECTIVE} {best.objective:.4f}",
                f"The frozen backbone's features are computed by the first trial and shared in "
                f"s3://{self.bucket}/features/",
            ]
            if found.saved_epochs:
                step.facts.append(
                    f"Early stopping (Auto) saved {found.saved_epochs} of {found.all_epochs} epochs"
                )
        return found

    @property
    def inputs(self) -> dict[str, str]:
        """The channels of every training job."""
        return {"training": f"s3://{self.bucket}/data"}

    def train(self, found: Tuning, instances: int) -> Trained:
        """A training job with the best hyperparameters, its log on the terminal."""
        number = "one instance" if instances == 1 else f"{instances} instances, with gloo"
        with self.journal.step(f"The best hyperparameters on {number}") as step:
            hyperparameters: dict[str, Any] = {
                "learning_rate": found.best.learning_rate,
                "batch_size": found.best.batch_size,
            }
            if instances > 1:
                hyperparameters["backend"] = "gloo"
                self.say(f"The {instances} instances share the CPUs of this machine.")
            estimator = self.estimator(instances, hyperparameters)
            estimator.fit(self.inputs, wait=False)
            job: Any = estimator.latest_training_job
            self.job = job.name
            self.say(f"Training job {self.job} is running")
            description = follow(self.client, self.boto.client("logs"), str(self.job), self.console)
            model = trained(self.s3, description)
            step.facts += [
                f"Job {model.job}: {duration(model.seconds)} of training with {model.backbone}",
                f"Test accuracy {model.test_accuracy:.1%}, test loss {model.test_loss:.4f}; "
                f"validation accuracy {model.epochs[-1].valid_accuracy:.1%}",
            ]
        return model

    def deploy(self, models: Sequence[Trained]) -> None:
        """An endpoint for each model, InService; both start at the same time."""
        with self.journal.step("Two endpoints") as step:
            for model in models:
                served = PyTorchModel(
                    model_data=model.artifact,
                    entry_point="inference.py",
                    source_dir=str(self.source),
                    role=self.role,
                    sagemaker_session=self.session,
                    **FRAMEWORK,
                )
                predictor: Any = served.deploy(
                    initial_instance_count=1, instance_type="ml.m5.large", wait=False
                )
                self.endpoint = model.endpoint = predictor.endpoint_name
                self.say(f"{model.endpoint} is Creating: the model of {model.name}")
            with self.console.status("   Waiting until both are InService"):
                for model in models:
                    self.until_in_service(model.endpoint)
                    step.facts.append(f"{model.endpoint} is InService: the model of {model.name}")

    def until_in_service(self, endpoint: str) -> None:
        """Wait for an endpoint; TourError when it fails."""
        while True:
            description = self.client.describe_endpoint(EndpointName=endpoint)
            status = description["EndpointStatus"]
            if status == "InService":
                return
            if status != "Creating":
                self.endpoint = endpoint
                reason = description.get("FailureReason", "no reason is given")
                raise TourError(f"{endpoint} is {status}: {reason}")
            time.sleep(LOOK_S)

    def question(self, folder: ImageFolder, models: Sequence[Trained]) -> None:
        """The same photographs for both endpoints, as bytes and by address."""
        with self.journal.step("The same pictures to both endpoints") as step:
            pictures = choose(folder, random.Random(self.stamp))
            keys = [f"data/{path.relative_to(folder.root).as_posix()}" for path in pictures]
            url = self.s3.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": keys[0]}, ExpiresIn=600
            )
            runtime = self.session.sagemaker_runtime_client
            labels = [folder.label(path) for path in pictures]
            for model in models:
                classes = json.loads(file_in(self.s3, model.artifact, "model.json"))["classes"]
                self.endpoint = model.endpoint
                model.answers, lines = ask(runtime, model.endpoint, pictures, labels, classes, url)
                step.facts += [f"The model of {model.name}:", *(f"   {line}" for line in lines)]

    def plain_machine(self, folder: ImageFolder) -> PlainRun:
        """The same kind of training by a script that knows of no platform."""
        with self.journal.step("The plain machine") as step:
            place = self.plan.folder / f"plain-{self.stamp}"
            self.say("python ec2_train.py, as an ordinary process outside of the platform")
            script = Path(self.plan.source) / "ec2_train.py"
            outside = plain.run(script, folder.root, place, self.image_size, self.console)
            step.facts += [
                f"{duration(outside.seconds)}; test accuracy {outside.test_accuracy:.1%}",
                f"{place / 'TrainedModels' / 'model.pth'}",
            ]
        return outside

    def report(self, facts: Facts) -> None:
        """What came of it, on the terminal and as a page."""
        with self.journal.step("The report") as step:
            cloudwatch = self.boto.client("cloudwatch")
            job = facts.models[0].job
            description = self.client.describe_training_job(TrainingJobName=job)
            facts.cpu = cpu_use(cloudwatch, description)
            facts.memory = memory_use(cloudwatch, description)
            page = self.plan.folder / f"report-{self.stamp}.html"
            facts.kept = self.kept(page, facts)
            facts.next_steps = next_steps(self.plan, self.bucket, facts)
            facts.steps = [(s.title, s.seconds, s.facts) for s in self.journal.steps[:-1]]
            facts.seconds = time.time() - self.plan.started
            write_page(facts, page)
            step.facts.append(f"{page}")
        print_report(facts, self.console)

    def kept(self, page: Path, facts: Facts) -> dict[str, str]:
        """Return where everything is: for the report."""
        places = {
            "This report": str(page),
            "Pictures": f"s3://{self.bucket}/data/",
            "Tuning job": facts.tuning.job,
            "Shared features": f"s3://{self.bucket}/features/",
        }
        for model in facts.models:
            places |= {
                f"Model, {model.name}": model.artifact,
                f"Log, {model.name}": f"/aws/sagemaker/TrainingJobs, {model.job}/algo-…",
                f"Endpoint, {model.name}": model.endpoint,
            }
        home = f"{self.plan.home} (the tour's own; `cloche up` without --home uses another)"
        return places | {"Plain machine": facts.plain.folder, "Home folder": home}

    def say(self, text: str) -> None:
        """Print a line of the step that is under way."""
        self.console.print(f"   {text}", markup=False, highlight=False, soft_wrap=True)

    def stop_what_runs(self) -> None:
        """Ask the jobs that are under way to stop: nobody waits for them any more."""
        if self.search is not None:
            search = {"HyperParameterTuningJobName": self.search}
            found = self.client.describe_hyper_parameter_tuning_job(**search)
            if found["HyperParameterTuningJobStatus"] == "InProgress":
                self.client.stop_hyper_parameter_tuning_job(**search)
        if self.job is not None:
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
        job = self.job or self.search  # the names of a search's jobs begin with its own
        for purpose, place in where_to_look(self.plan, job, self.endpoint):
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
    plan = TourPlan.from_json(argument)
    console = Console()
    story = Story(plan, console)
    console.print(f"[bold]Cloche tour[/]: {plan.data_name}, in {plan.home}", highlight=False)
    try:
        story.tell()
    except KeyboardInterrupt:
        story.stop_what_runs()
        return 130
    except Exception as error:  # whatever failed, the reader learns which step, and why
        story.explain(error)
        with suppress(Exception):  # what failed has been reported
            story.stop_what_runs()
        return 1
    finally:
        shutil.rmtree(story.source.parent, ignore_errors=True)
    return 0
