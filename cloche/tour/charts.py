"""Charts of the report: SVG by matplotlib, whose colours are the page's own (light or dark)."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

from cloche.tour.facts import Epoch, Use

# Stand-ins that no chart uses otherwise; in the SVG each becomes a colour of the page.
INK, FAINT, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
PAGE_COLOURS = {
    INK: "var(--soft)",
    FAINT: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, selectable, in the page's font
    "svg.hashsalt": "cloche",  # the same numbers give the same file
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
}
WIDTH, HEIGHT = 5.0, 2.9  # inches


def loss_chart(epochs: Sequence[Epoch]) -> str:
    """Return the training and validation loss by epoch, as SVG."""
    figure, (axes,) = blank()
    numbers = [epoch.number for epoch in epochs]
    curve(axes, numbers, [epoch.train_loss for epoch in epochs], FIRST, "training")
    curve(axes, numbers, [epoch.valid_loss for epoch in epochs], SECOND, "validation")
    axes.set_ylim(bottom=0)
    by_epoch(axes, len(epochs))
    return svg(figure, "Loss by epoch")


def accuracy_chart(epochs: Sequence[Epoch]) -> str:
    """Return the training and validation accuracy by epoch, as SVG."""
    figure, (axes,) = blank()
    numbers = [epoch.number for epoch in epochs]
    curve(axes, numbers, [epoch.train_accuracy for epoch in epochs], FIRST, "training")
    curve(axes, numbers, [epoch.valid_accuracy for epoch in epochs], SECOND, "validation")
    axes.set_ylim(top=1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    by_epoch(axes, len(epochs))
    return svg(figure, "Accuracy by epoch")


def use_chart(use: Use, title: str) -> str:
    """Return a use in percent over the job's time, as SVG."""
    figure, (axes,) = blank()
    axes.plot(use.seconds, use.values, color=FIRST, linewidth=2)
    axes.fill_between(use.seconds, use.values, color=FIRST, alpha=0.15, linewidth=0)
    by_second(axes, "seconds since the job was created")
    return svg(figure, title)


def two_uses_chart(uses: Mapping[str, Use], title: str) -> str:
    """Return two uses in percent side by side, as SVG. uses: by their labels.

    Each has a time axis of its own: one may take many times as long as the other.
    """
    figure, axes = blank(2)
    for part, (label, use), colour in zip(axes, uses.items(), (FIRST, SECOND), strict=True):
        part.plot(use.seconds, use.values, color=colour, linewidth=2)
        part.fill_between(use.seconds, use.values, color=colour, alpha=0.12, linewidth=0)
        part.set_title(f"{label}, {use.seconds[-1]:.0f} s", fontsize=11, color=INK)
        by_second(part, "seconds")
        part.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return svg(figure, title)


def by_second(axes: Axes, label: str) -> None:
    """Label a chart of percents over seconds."""
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    # As many decimals as the ticks need: 0.5% and 1.0% are not both "1%".
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}%"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(label)


def blank(parts: int = 1) -> tuple[Figure, list[Axes]]:
    """Return an empty chart in the page's style, of `parts` side by side with one upright axis."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        every: list[Axes] = list(figure.subplots(1, parts, sharey=True, squeeze=False)[0])
    for axes in every:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, every


def curve(
    axes: Axes, numbers: Sequence[int], values: Sequence[float], colour: str, label: str
) -> None:
    """Draw one line with a mark an epoch; its form tells the lines apart, too."""
    marker = "o" if colour == FIRST else "s"
    axes.plot(
        numbers, values, color=colour, linewidth=2, marker=marker, markersize=4.5, label=label
    )


def by_epoch(axes: Axes, epochs: int) -> None:
    """Label a chart whose horizontal axis counts epochs."""
    axes.set_xlim(0.7, epochs + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.legend(frameon=False, loc="best", labelcolor=INK)


def svg(figure: Figure, title: str) -> str:
    """Return the figure as an SVG element that fits a page of any width and colour."""
    buffer = StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": title}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Title": title}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, colour in PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    opening, rest = text.split(">", 1)
    attributes = " ".join(
        part for part in opening.split() if not part.startswith(("width=", "height="))
    )
    return f'{attributes} role="img" aria-label="{title}">{rest}'.replace(
        "'DejaVu Sans', 'Bitstream Vera Sans'", "inherit, 'DejaVu Sans'"
    )
