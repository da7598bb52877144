"""A tour that never ran, for the page and the hints."""

from io import BytesIO

from PIL import Image

from cloche.tour.facts import (
    Epoch,
    Facts,
    Guess,
    PlainRun,
    Prediction,
    TourTrial,
    Trained,
    Tuning,
    Use,
)


def jpeg(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def answer(truth: str, *names: str, best: float = 5.0) -> Prediction:
    guesses = tuple(Guess(name, best - n, 0.9 / (n + 1)) for n, name in enumerate(names))
    return Prediction(jpeg("brown"), truth, guesses, 0.0412)


def tuning() -> Tuning:
    trials = (
        TourTrial(1, "search-001", 0.001, 32, "Completed", epoch=4, objective=1.1, test_loss=1.2),
        TourTrial(2, "search-002", 0.01, 64, "Completed", epoch=4, objective=0.8, test_loss=0.9),
        TourTrial(3, "search-003", 0.0003, 16, "Stopped", epoch=2, objective=2.4),
        TourTrial(4, "search-004", 0.03, 16, "Failed"),
    )
    return Tuning("search", trials, trials[1], epochs=4, parallel=3, seconds=61.2)


def model(instances: int, *answers: Prediction) -> Trained:
    return Trained(
        job=f"job-{instances}",
        instances=instances,
        seconds=20.5 + instances,
        backbone="efficientnet-lite0",
        epochs=[Epoch(1, 2.0, 0.5, 1.8, 0.55), Epoch(2, 1.0, 0.7, 1.1, 0.68)],
        test_loss=1.0213,
        test_accuracy=0.6914,
        artifact=f"s3://dog-breeds-1/training/job-{instances}/output/model.tar.gz",
        endpoint=f"pytorch-inference-{instances}",
        answers=answers,
    )


def facts() -> Facts:
    return Facts(
        title="dog photographs",
        day="2026-01-02 03:04",
        tuning=tuning(),
        models=[
            model(
                1,
                answer("Beagle", "Beagle", "Basset hound", "Harrier"),
                answer("Borzoi", "Saluki", "Borzoi", "Whippet"),
            ),
            model(
                4,
                answer("Beagle", "Beagle", "Basset hound", "Harrier", best=5.25),
                answer("Borzoi", "Borzoi", "Saluki", "Whippet"),
            ),
        ],
        plain=PlainRun(33.0, Use((0.5, 1.0), (100.0, 180.0)), 0.6512, "/home/tour/plain-1"),
        seconds=201.4,
        starting_s=8.4,
        data="133 classes; pictures: 6,680 train, 835 valid, 836 test",
        steps=[("Pictures in a bucket", 9.2, ["8,351 objects <script>"]), ("A job", 120.0, [])],
        chance=1 / 133,
        cpu=Use((0.0, 5.0, 10.0), (20.0, 190.0, 185.0)),
        memory=Use((0.0, 5.0, 10.0), (2.0, 9.0, 9.0)),
        kept={"Pictures": "s3://dog-breeds-1/data/"},
        next_steps=[("Start again", "cloche up --home DIR")],
    )
