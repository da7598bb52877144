"""The report's page: made of given numbers, complete in itself."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
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


def test_the_colours_have_the_contrast_that_wcag_aa_asks() -> None:
    style = (resources.files("cloche.tour") / "page.html").read_text()
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", scheme))
        for scheme in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(schemes) == 2  # light and dark
    for scheme in schemes:
        for text in ("ink", "soft", "good", "bad"):
            for ground in ("paper", "card", "track"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground, scheme)
        for line in ("first", "second", "soft", "good"):
            assert contrast(scheme[line], scheme["card"]) >= 3, (line, scheme)
        for bar in ("first", "soft", "good"):
            assert contrast(scheme[bar], scheme["track"]) >= 3, (bar, scheme)


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_each_use_has_its_own_time_and_percents_that_differ() -> None:
    short = Use((0.0, 5.0, 10.0), (20.0, 190.0, 185.0))
    long = Use((0.0, 60.0, 123.0), (100.0, 180.0, 190.0))
    chart = two_uses_chart({"job": short, "plain": long}, "CPU use")
    assert "job, 10 s" in chart
    assert "plain, 123 s" in chart
    small = use_chart(Use((0.0, 5.0, 10.0), (0.4, 1.1, 1.6)), "Memory use")
    ticks = re.findall(r">([0-9.]+)%<", small)
    assert len(ticks) == len(set(ticks)) >= 3


def test_several_instances_are_spoken_of_as_measured() -> None:
    given = facts()
    one, many = given.models
    for seconds, words in (
        (45.0, "1.9 times as fast: several processes kept the CPUs busier than one."),
        (24.5, "Here they were about as fast."),
        (12.0, "2.0 times as slow: they also have to exchange gradients."),
    ):
        one.seconds, many.seconds = seconds, 24.0
        text = render(given)
        assert words in text
        assert "unlike on AWS, 4 of them have no more computing power than one" in text


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
    assert "no value" in chart
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
