"""The report's page: made of given numbers, complete in itself."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

from made_up_tour import facts, tuning
from rich.console import Console

from cloche.tour.charts import accuracy_chart, loss_chart, two_uses_chart, use_chart
from cloche.tour.facts import Use
from cloche.tour.report import print_report, render, write_page
from cloche.tour.search_charts import coordinates_chart, trials_chart


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(v) for k, v in attrs if k in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")


def test_the_page_tells_it_all() -> None:
    page = render(facts())
    for text in ("4 trials", "1 stopped early", "1 failed", "trial 2", "0.01000", "4 instances"):
        assert text in page
    for text in ("for 1 of 2 pictures", "at most 0.25 apart", "1 of 2", "65.1%", "33 s", "24 s"):
        assert text in page
    for text in ("69.1%", "68.0%", "3 min 21 s", "41 ms", "8.4 s", "Beagle", "✗ Saluki", "1.0213"):
        assert text in page
    for text in ("s3://dog-breeds-1/data/", "cloche up --home DIR", "133 classes"):
        assert text in page
    assert "8,351 objects &lt;script&gt;" in page
    assert page.count("<svg") == 6


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
    assert len(identifiers) == len(set(identifiers)) >= 6


def test_charts_are_drawn_in_the_page_s_colours_and_hold_the_data() -> None:
    given = facts()
    epochs = given.models[0].epochs
    for chart in (
        loss_chart(epochs),
        accuracy_chart(epochs),
        use_chart(given.memory, "Memory use"),
        two_uses_chart({"job": given.cpu, "plain": given.plain.cpu}, "CPU use"),
        trials_chart(given.tuning),
        coordinates_chart(given.tuning),
    ):
        ElementTree.fromstring(chart)
        assert "var(--first)" in chart
        assert "#010203" not in chart
        assert 'width="' not in chart.split(">", 1)[0]
    assert "validation" in loss_chart(epochs)
    assert loss_chart(epochs) == loss_chart(epochs)
    assert loss_chart(epochs) != loss_chart(epochs[:1])


def test_trials_stopped_early_and_failed_ones_are_marked() -> None:
    chart = trials_chart(tuning())
    assert "stopped early" in chart
    assert "gave no value" in chart
    assert "stroke-dasharray" in coordinates_chart(tuning())
    first, second, *_ = tuning().trials
    plain = replace(tuning(), trials=(first, second))
    assert "stopped early" not in trials_chart(plain)
    assert "stroke-dasharray" not in coordinates_chart(plain)


def test_one_trial_makes_charts_too() -> None:
    only = replace(tuning(), trials=tuning().trials[1:2])
    for chart in (trials_chart(only), coordinates_chart(only)):
        ElementTree.fromstring(chart)


def test_without_metrics_there_is_no_empty_chart() -> None:
    given = facts()
    given.cpu = Use((), ())
    assert render(given).count("<svg") == 5


def test_the_terminal_gets_the_same_numbers(tmp_path: Path) -> None:
    output = StringIO()
    print_report(facts(), Console(file=output, width=100))
    text = output.getvalue()
    for part in (
        "Starting up",
        "8.4 s",
        "Test accuracy",
        "69.1%",
        "4 instances",
        "plain machine",
        "same class for 1 of 2",
        "3 min 21 s",
        "s3://dog-breeds-1/data/",
    ):
        assert part in text
    write_page(facts(), tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")
