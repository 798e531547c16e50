"""Draws the results of part 1 as a bar chart in SVG, readable on light and dark pages and without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.contenders import CONTENDERS
from bench.figures import number
from bench.results import Results

_WIDTH, _ROW, _TOP = 920, 26, 62
_LABELS, _FIGURES = 390, 90
"""Widths in pixels of the names left of the bars and of the figures right of them."""

_COLOURS = {"ours": "#2f9e6e", "peer": "#6f87b8", "floor": "#a3a3a3"}
"""By role; dark enough on white, light enough on black."""

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .note { font-size: 12px; fill: #57606a }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9da7b3 } }
"""

_LEFT_OUT = frozenset({"sets-of-100", "no-queue-50", "ours-metrics", "ours-limited", "ours-queues"})
"""Not drawn. The first has no jobs, and its bar would reduce all others to dots; of others, one of two is enough."""


@dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    value: float
    role: str


def bars(results: Results) -> list[Bar]:
    """Return the rates of ``create_user``, the highest first."""
    found = [
        Bar(CONTENDERS[name].title, results.median("create_user", name) or 0, CONTENDERS[name].role)
        for name in results.measured.get("create_user", {})
        if name not in _LEFT_OUT
    ]
    return sorted(found, key=lambda bar: -bar.value)


def draw(shown: Sequence[Bar], *, title: str, note: str) -> str:
    """Return the SVG. Lengths are proportional to the values; a logarithmic scale would favour slow contenders.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not shown:
        raise ValueError("there is nothing to draw: part 1 was not measured")
    scale = (_WIDTH - _LABELS - _FIGURES) / max(bar.value for bar in shown)
    height = _TOP + _ROW * len(shown) + 12
    rows = "\n".join(_draw_bar(bar, scale, _TOP + _ROW * at) for at, bar in enumerate(shown))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"
 width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">
<style>{_STYLE}</style>
<text class="title" x="12" y="24">{escape(title)}</text>
<text class="note" x="12" y="44">{escape(note)}</text>
{rows}
</svg>
"""


def _draw_bar(bar: Bar, scale: float, top: float) -> str:
    width = max(1.0, bar.value * scale)
    middle = top + 16
    return (
        f'<text x="{_LABELS - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect x="{_LABELS}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 8}" rx="2" '
        f'fill="{_COLOURS[bar.role]}"/>'
        f'<text x="{_LABELS + width + 8:.1f}" y="{middle}">{number(bar.value)}</text>'
    )
