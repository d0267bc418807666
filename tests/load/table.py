"""The table of a run: a line a figure, its target beside it, and what the machine did meanwhile."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from tests.load.machine import Noise

TOLERATED = 2.0
"""The short form fails where a ratio misses its target by more than this factor."""


class Figure(NamedTuple):
    """Something measured and what it is to be."""

    what: str
    value: float
    target: float | None
    """None where nothing is demanded: what a reader wants to know besides."""
    unit: str = ""
    """Empty for a ratio, else what it is in."""
    least: bool = True
    """Whether the target is the least that is wanted, or the most."""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it is what it is to be."""
        return self.missed_by <= 1.0

    @property
    def missed_by(self) -> float:
        """The factor between target and value; above 1 it is missed."""
        if self.target is None:
            return 0.0
        worse, better = (self.target, self.value) if self.least else (self.value, self.target)
        return worse / better if better > 0 else float("inf") if worse > 0 else 1.0

    @property
    def fails(self) -> bool:
        """Whether it is a ratio, or a count of errors, that is far off."""
        return not self.unit and self.missed_by > TOLERATED


def ratio(what: str, value: float, target: float | None, note: str = "") -> Figure:
    """Return a ratio that is to be at least `target`, if there is one."""
    return Figure(what, value, target, note=note)


def limit(what: str, value: float, target: float | None, unit: str, note: str = "") -> Figure:
    """Return a figure that is to be at most `target`, if there is one; without a unit it is a ratio or a count too."""
    return Figure(what, value, target, unit, least=False, note=note)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(figure: Figure) -> None:
    """Print a figure as a line of the table, in Markdown."""
    unit = f" {figure.unit}" if figure.unit else ""
    demanded = "" if figure.target is None else f"{'≥' if figure.least else '≤'} {figure.target:g}{unit}"
    verdict = "" if figure.target is None else "yes" if figure.met else "**no**"
    print(f"| {figure.what} | {demanded} | {_number(figure.value)}{unit} | {verdict} | {figure.note} |", flush=True)


def show_head() -> None:
    """Print the head of the table."""
    print("| what | target | measured | met | how |\n|---|---|---|---|---|", flush=True)


def show_noise(noise: Sequence[Noise]) -> None:
    """Print what the machine did: the same work again and again, and who else was busy."""
    speeds = [each.speed for each in noise]
    print(
        f"\nNoise: one calibration loop before and after each row, million lines a second: min {min(speeds):.2f}, "
        f"median {median(speeds):.2f}, max {max(speeds):.2f}."
    )
    for each in noise:
        disturbed = " **disturbed**" if each.disturbed else ""
        print(
            f"- {each.row}: {each.seconds:.0f} s, loop at {each.speed:.2f}, "
            f"others used {each.elsewhere:.2f} cores, stolen {each.stolen:.2f}{disturbed}"
        )


def _number(value: float) -> str:
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
