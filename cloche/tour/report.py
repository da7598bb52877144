"""The report: on the terminal, and as one page that needs nothing but itself."""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from cloche.tour.charts import accuracy_chart, loss_chart, two_uses_chart, use_chart
from cloche.tour.facts import Facts
from cloche.tour.journal import duration
from cloche.tour.search_charts import coordinates_chart, trials_chart

SAME_TIME = 1.15  # less than this apart is chance
SHOWN = 7  # pictures on the page: one large, the others in a row

TEMPLATES = Environment(
    loader=PackageLoader("cloche.tour", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["duration"] = duration
TEMPLATES.filters["data_uri"] = lambda jpeg: (
    "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
)
TEMPLATES.filters["percent"] = lambda share: f"{share:.1%}"
TEMPLATES.filters["without_markup"] = lambda text: Markup(text).striptags()


def print_report(facts: Facts, console: Console) -> None:
    """Print the whole tour in a few tables."""
    steps = Table(box=None, padding=(0, 3, 0, 3))
    steps.add_column("Step")
    steps.add_column("Time", justify="right")
    steps.add_row("Starting up", duration(facts.starting_s))
    for title, seconds, _ in facts.steps:
        steps.add_row(title, duration(seconds))
    steps.add_row("[bold]The whole tour", f"[bold]{duration(facts.seconds)}")
    results = Table(box=None, padding=(0, 1, 0, 3))
    results.add_column("Model", no_wrap=True)
    for title in ("Trained in", "Test accuracy", "Test loss", "Correct"):
        results.add_column(title, justify="right", no_wrap=True)
    for model in facts.models:
        results.add_row(
            model.name,
            duration(model.seconds),
            f"[bold]{model.test_accuracy:.1%}",
            f"{model.test_loss:.4f}",
            f"{model.right} of {facts.asked}",
        )
    plain = facts.plain
    results.add_row("plain machine", duration(plain.seconds), f"{plain.test_accuracy:.1%}", "", "")
    for table in (steps, results):
        console.print()
        console.print(table, highlight=False)
    console.print(f"\n   {agreement(facts)}", highlight=False, soft_wrap=True)
    console.print("\n[bold]   Where everything is")
    for what, where in facts.kept.items():
        console.print(f"   {what + ':':<22} {where}", markup=False, highlight=False, soft_wrap=True)
    console.print("\n[bold]   What to try next")
    for purpose, command in facts.next_steps:
        console.print(f"   {purpose}:", markup=False, highlight=False, soft_wrap=True)
        console.print(f"      {command}", markup=False, highlight=False, soft_wrap=True)


def agreement(facts: Facts) -> str:
    """Return in words how far the two endpoints agree."""
    return (
        f"Both endpoints named the same class for {facts.agreed} of {facts.asked} pictures; "
        f"their best scores are at most {facts.apart:.2g} apart."
    )


def instances(facts: Facts) -> str:
    """Return in words what several instances on one machine are, beside what was measured."""
    one, many = facts.models
    ratio = one.seconds / many.seconds
    if ratio > SAME_TIME:
        measured = f"{ratio:.1f} times as fast: several processes kept the CPUs busier than one"
    elif ratio < 1 / SAME_TIME:
        measured = f"{1 / ratio:.1f} times as slow: they also have to exchange gradients"
    else:
        measured = "about as fast"
    return (
        f"All instances share the CPUs of this one machine: unlike on AWS, {many.instances} of "
        f"them have no more computing power than one. Here they were {measured}."
    )


def render(facts: Facts) -> str:
    """Return the page: HTML with its style, pictures and charts inside."""
    one, tuning = facts.models[0], facts.tuning
    search = [
        (
            "Validation loss by trial",
            "A dot is a trial; the line is the best one so far. Lower is better.",
            trials_chart(tuning),
        ),
        (
            "Hyperparameters and result of each trial",
            "A line is a trial; the strong one is the best.",
            coordinates_chart(tuning),
        ),
    ]
    training = [
        ("Loss", "Lower is better.", loss_chart(one.epochs)),
        (
            "Accuracy",
            "The share of the pictures that were classified correctly.",
            accuracy_chart(one.epochs),
        ),
    ]
    machines = []
    if facts.cpu.seconds and facts.plain.cpu.seconds:
        uses = {"training job": facts.cpu, "plain machine": facts.plain.cpu}
        note = "100% is one CPU at full load. Each since it was started."
        title = "CPU use of the training job and of the plain machine"
        machines.append(("CPU use", note, two_uses_chart(uses, title)))
    if facts.memory.seconds:
        title = "Memory use of the training job over time"
        note = "Of the training job; 100% is all of the instance's."
        machines.append(("Memory use", note, use_chart(facts.memory, title)))
    return TEMPLATES.get_template("page.html").render(
        facts=facts,
        shown=SHOWN,
        agreement=agreement(facts),
        instances=instances(facts),
        search=marked(search),
        training=marked(training),
        machines=marked(machines),
    )


def marked(charts: list[tuple[str, str, str]]) -> list[tuple[str, str, Markup]]:
    """Return title, note and chart, the chart as what is markup already."""
    return [(title, note, Markup(svg)) for title, note, svg in charts]


def write_page(facts: Facts, path: Path) -> None:
    """Write the page to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(facts), encoding="utf-8")
