"""The timeline of a video: a line a person, coloured by where the face looks."""

from typing import IO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtnet_jax.predict.summary import DIRECTIONS, Person, span

COLOURS = {
    "camera": "#2a9d4b",
    "left": "#3b7dd8",
    "right": "#e07b39",
    "up": "#9bd0f5",
    "down": "#c9a227",
    "away": "#8a8a8a",
}
_MOST_LINES = 40  # persons; the longest seen


def plot_timeline(persons: list[Person], file: IO[bytes]) -> None:
    """Writes the timeline as PNG: seconds to the right, one line a person, gaps where unseen.

    Args:
      persons: everybody; of more than 40 the ones seen for longest, and the title says so.
      file: open for writing.
    """
    shown = sorted(persons, key=lambda p: -p.seen)[:_MOST_LINES]
    shown = sorted(shown, key=lambda p: p.number)
    figure = Figure(figsize=(10, 1.4 + 0.32 * max(len(shown), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, person in enumerate(shown):
        bars = [(i.start, i.end - i.start) for i in person.intervals]
        colours = [COLOURS[i.direction] for i in person.intervals]
        axes.broken_barh(bars, (line - 0.38, 0.76), facecolors=colours)
    axes.set_yticks(range(len(shown)), [f"person {p.number}" for p in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5) if shown else axes.set_yticks([])
    start, end = span(persons)
    axes.set_xlim(start, max(end, start + 1e-3))
    axes.set_xlabel("seconds")
    if len(persons) > len(shown):
        axes.set_title(f"the {len(shown)} of {len(persons)} persons seen for longest")
    patches = [Patch(color=COLOURS[name], label=name) for name in DIRECTIONS]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), frameon=False)
    figure.savefig(file, format="png", dpi=110)
