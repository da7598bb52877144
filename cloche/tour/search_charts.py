"""Charts of the search: the objective by trial, and parallel coordinates of what was tried."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from cloche.tour.charts import FIRST, INK, SECOND, blank, svg
from cloche.tour.facts import TourTrial, Tuning

MARK = 6.5  # points


def trials_chart(tuning: Tuning) -> str:
    """Return the objective of each trial and the best one so far, as SVG.

    A trial without an objective is a cross at the lower edge.
    """
    figure, (axes,) = blank()
    known = [trial for trial in tuning.trials if trial.objective is not None]
    lowest, best = math.inf, []
    for trial in known:
        lowest = min(lowest, trial.objective or 0.0)
        best.append(lowest)
    numbers = [trial.number for trial in known]
    axes.plot(numbers, best, color=SECOND, linewidth=2, drawstyle="steps-post", label="best so far")
    for early, face, label in ((False, FIRST, "trial"), (True, "none", "stopped early")):
        some = [trial for trial in known if trial.early is early]
        if some:
            dots(axes, some, face, label)
    if lost := [trial.number for trial in tuning.trials if trial.objective is None]:
        axes.plot(
            lost,
            [0.04] * len(lost),
            "x",
            color=INK,
            transform=axes.get_xaxis_transform(),
            label="no value",
        )
    axes.set_ylim(0, 1.35 * axes.dataLim.y1)
    axes.set_xlim(0.5, len(tuning.trials) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("trial")
    axes.legend(frameon=False, loc="upper right", labelcolor=INK, ncols=2)  # above all dots
    return svg(figure, "Objective by trial")


def dots(axes: Axes, trials: Sequence[TourTrial], face: str, label: str) -> None:
    """Draw trials as dots, filled with `face`."""
    axes.plot(
        [trial.number for trial in trials],
        [trial.objective or 0.0 for trial in trials],
        "o",
        markersize=MARK,
        markerfacecolor=face,
        markeredgecolor=FIRST,
        markeredgewidth=1.6,
        label=label,
    )


def coordinates_chart(tuning: Tuning) -> str:
    """Return parallel coordinates of learning rate, batch size and objective, as SVG.

    One line a trial that gave an objective: the best one strong, those stopped early dashed.
    """
    figure, (axes,) = blank()
    trials = [trial for trial in tuning.trials if trial.objective is not None]
    scales: list[tuple[str, list[float], Callable[[float], str]]] = [
        ("learning rate", [math.log10(t.learning_rate) for t in trials], lambda v: f"{10**v:.2g}"),
        ("batch", [math.log2(t.batch_size) for t in trials], lambda v: f"{2**v:.0f}"),
        ("validation loss", [t.objective or 0.0 for t in trials], lambda v: f"{v:.3f}"),
    ]
    places = []
    for number, (title, values, text) in enumerate(scales):
        low, high = min(values), max(values)
        places.append([(v - low) / (high - low) if high > low else 0.5 for v in values])
        scale(axes, number, title, sorted({low, high}), text)
    for trial, heights in zip(trials, zip(*places, strict=True), strict=True):
        strong = trial.number == tuning.best.number
        axes.plot(
            range(len(scales)),
            heights,
            color=SECOND if strong else FIRST,
            linewidth=2.8 if strong else 1.4,
            alpha=1.0 if strong else 0.8,
            linestyle="--" if trial.early else "-",
            zorder=3 if strong else 2,
        )
    axes.set_xlim(-0.35, len(scales) - 0.65)
    axes.set_ylim(-0.16, 1.34)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    return svg(figure, "Learning rate, batch size and validation loss of each trial")


def scale(
    axes: Axes, at: int, title: str, ends: Sequence[float], text: Callable[[float], str]
) -> None:
    """Draw one upright axis with its title above and its values at the ends."""
    axes.plot([at, at], [0, 1], color=INK, linewidth=1.2, zorder=1)
    axes.text(at, 1.32, title, ha="center", va="top", color=INK, fontweight="bold")
    heights = (0.0, 1.0) if len(ends) == 2 else (0.5,)
    for height, value in zip(heights, ends, strict=True):
        axes.text(
            at, height - 0.03 if height == 0 else height + 0.02, text(value),
            ha="center", va="top" if height == 0 else "bottom", color=INK,
        )  # fmt: skip
