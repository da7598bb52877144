"""The report's page: made of given numbers, complete in itself."""

import re
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image
from rich.console import Console

from cloche.tour.charts import accuracy_chart, loss_chart, use_chart
from cloche.tour.facts import Answer, Epoch, Facts, Guess, Use
from cloche.tour.report import print_report, render, write_page


def jpeg(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def answer(truth: str, *names: str) -> Answer:
    guesses = tuple(Guess(name, 5.0 - n, 0.9 / (n + 1)) for n, name in enumerate(names))
    return Answer(jpeg("brown"), truth, guesses, 0.0412)


def facts() -> Facts:
    return Facts(
        title="dog photographs",
        day="2026-01-02 03:04",
        seconds=201.4,
        starting_s=8.4,
        data="133 classes; pictures: 6,680 train, 835 valid, 836 test",
        backbone="efficientnet-lite0",
        steps=[("Pictures in a bucket", 9.2, ["8,351 objects <script>"]), ("A job", 120.0, [])],
        epochs=[Epoch(1, 2.0, 0.5, 1.8, 0.55), Epoch(2, 1.0, 0.7, 1.1, 0.68)],
        test_loss=1.0213,
        test_accuracy=0.6914,
        chance=1 / 133,
        cpu=Use((0.0, 5.0, 10.0), (20.0, 190.0, 185.0)),
        answers=[
            answer("Beagle", "Beagle", "Basset hound", "Harrier"),
            answer("Borzoi", "Saluki", "Borzoi", "Whippet"),
        ],
        kept={"Pictures": "s3://dog-breeds-1/data/"},
        next_steps=[("Start again", "cloche up --home DIR")],
    )


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(v) for k, v in attrs if k in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")


def test_the_page_tells_it_all() -> None:
    page = render(facts())
    for text in ("69.1%", "68.0%", "3 min 21 s", "41 ms", "8.4 s", "Beagle", "✗ Saluki", "1.0213"):
        assert text in page
    for text in ("s3://dog-breeds-1/data/", "cloche up --home DIR", "133 classes"):
        assert text in page
    assert "8,351 objects &lt;script&gt;" in page
    assert page.count("<svg") == 3


def test_the_page_needs_nothing_but_itself() -> None:
    page = render(facts())
    links = Links()
    links.feed(page)
    assert len(links.found) == 2  # the pictures; charts refer to their own parts by #
    assert all(link.startswith("data:image/jpeg;base64,") for link in links.found)
    assert not re.search(r"url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_ids_of_the_charts_do_not_collide() -> None:
    identifiers = re.findall(r'<clipPath id="([^"]+)"', render(facts()))
    assert len(identifiers) == len(set(identifiers)) == 3


def test_charts_are_drawn_in_the_page_s_colours_and_hold_the_data() -> None:
    given = facts()
    for chart in (
        loss_chart(given.epochs),
        accuracy_chart(given.epochs),
        use_chart(given.cpu, "CPU use"),
    ):
        ElementTree.fromstring(chart)
        assert "var(--first)" in chart
        assert "#010203" not in chart
        assert 'width="' not in chart.split(">", 1)[0]
    assert "validation" in loss_chart(given.epochs)
    assert loss_chart(given.epochs) == loss_chart(given.epochs)
    assert loss_chart(given.epochs) != loss_chart(given.epochs[:1])


def test_without_metrics_there_is_no_empty_chart() -> None:
    given = facts()
    given.cpu = Use((), ())
    assert render(given).count("<svg") == 2


def test_the_terminal_gets_the_same_numbers(tmp_path: Path) -> None:
    output = StringIO()
    print_report(facts(), Console(file=output, width=100))
    text = output.getvalue()
    for part in (
        "Starting up",
        "8.4 s",
        "Test accuracy",
        "69.1%",
        "68.0%",
        "3 min 21 s",
        "s3://dog-breeds-1/data/",
    ):
        assert part in text
    write_page(facts(), tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")
