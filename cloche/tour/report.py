"""The report: on the terminal, and as one page that needs nothing but itself."""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from cloche.tour.charts import accuracy_chart, loss_chart, use_chart
from cloche.tour.facts import Facts
from cloche.tour.journal import duration

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
    last = facts.epochs[-1]
    results = Table(box=None, show_header=False, padding=(0, 3, 0, 3))
    results.add_row("Validation accuracy", f"{last.valid_accuracy:.1%}")
    results.add_row("Test accuracy", f"[bold]{facts.test_accuracy:.1%}")
    results.add_row("Test loss", f"{facts.test_loss:.4f}")
    for table in (steps, results):
        console.print()
        console.print(table, highlight=False)
    console.print("\n[bold]   Where everything is")
    for what, where in facts.kept.items():
        console.print(f"   {what + ':':<18} {where}", markup=False, highlight=False, soft_wrap=True)
    console.print("\n[bold]   What to try next")
    for purpose, command in facts.next_steps:
        console.print(f"   {purpose}:", markup=False, highlight=False, soft_wrap=True)
        console.print(f"      {command}", markup=False, highlight=False, soft_wrap=True)


def render(facts: Facts) -> str:
    """Return the page: HTML with its style, pictures and charts inside."""
    charts = [
        ("Loss", "Lower is better.", loss_chart(facts.epochs)),
        (
            "Accuracy",
            "The part of the pictures that was named rightly.",
            accuracy_chart(facts.epochs),
        ),
    ]
    uses = (
        ("CPU use", "Of the training job; 100% is one CPU at full load.", facts.cpu),
        ("Memory use", "Of the training job; 100% is all of the instance's.", facts.memory),
    )
    charts += [
        (title, note, use_chart(use, f"{title} of the training job over time"))
        for title, note, use in uses
        if use.seconds
    ]
    return TEMPLATES.get_template("page.html").render(
        facts=facts, charts=[(title, note, Markup(svg)) for title, note, svg in charts]
    )


def write_page(facts: Facts, path: Path) -> None:
    """Write the page to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(facts), encoding="utf-8")
