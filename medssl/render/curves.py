"""Draws curves over epochs as inline SVG; the style sheet of the page colours them."""

import math
from collections.abc import Sequence

from markupsafe import escape

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 22
Points = Sequence[tuple[float, float]]


def draw_curve(points: Points, dashed: float | None = None) -> str:
    """Returns an SVG with a line through the finite points and ticks; `dashed` adds a horizontal baseline."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    levels = [y for _, y in finite] + ([dashed] if dashed is not None else [])
    across, up = _compute_range([x for x, _ in finite]), _compute_range(levels)
    positions = [
        (_interpolate(x, across, LEFT, WIDTH - RIGHT), _interpolate(y, up, HEIGHT - BOTTOM, TOP)) for x, y in finite
    ]
    parts = [_draw_grid_line(y, _interpolate(y, up, HEIGHT - BOTTOM, TOP)) for y in compute_ticks(*up)]
    whole = [x for x in compute_ticks(*across) if x == int(x)]
    parts += [_draw_text(_interpolate(x, across, LEFT, WIDTH - RIGHT), HEIGHT - 6, f"{x:g}", "middle") for x in whole]
    if dashed is not None:
        y = _interpolate(dashed, up, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in positions)}"/>')
    hover, kind = zip(positions, finite, strict=True), "dot" if len(finite) == 1 else "hover"
    parts += [
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{e:g}: {v:.4g}</title></circle>'
        for (x, y), (e, v) in hover
    ]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def draw_curves(series: Sequence[tuple[str, Points]]) -> str:
    """Returns an SVG with the lines of several named series over each other; line n has the class `series-n`."""
    finite = [(name, [(x, y) for x, y in points if math.isfinite(y)]) for name, points in series]
    everything = [point for _, points in finite for point in points]
    if not everything:
        return ""
    across, up = _compute_range([x for x, _ in everything]), _compute_range([y for _, y in everything])
    parts = [_draw_grid_line(y, _interpolate(y, up, HEIGHT - BOTTOM, TOP)) for y in compute_ticks(*up)]
    whole = [x for x in compute_ticks(*across) if x == int(x)]
    parts += [_draw_text(_interpolate(x, across, LEFT, WIDTH - RIGHT), HEIGHT - 6, f"{x:g}", "middle") for x in whole]
    for number, (name, points) in enumerate(finite):
        places = [
            (_interpolate(x, across, LEFT, WIDTH - RIGHT), _interpolate(y, up, HEIGHT - BOTTOM, TOP)) for x, y in points
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        title = f"<title>{escape(name)}</title>"
        parts.append(f'<polyline class="line series-{number}" points="{line}">{title}</polyline>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def compute_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Returns at most about `wanted` round numbers within a range, spaced by 1, 2 or 5 times a power of ten."""
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= wanted)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _compute_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the minimum and the maximum, widened if they hardly differ."""
    low, high = min(values), max(values)
    room = 0.0 if high - low > 1e-3 * max(abs(low), abs(high)) else max(abs(low) / 2, 0.5)
    return low - room, high + room


def _interpolate(value: float, span: tuple[float, float], first: float, last: float) -> float:
    return first + (value - span[0]) / (span[1] - span[0]) * (last - first)


def _draw_grid_line(value: float, y: float) -> str:
    line = f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _draw_text(LEFT - 6, y + 3.5, f"{value:.4g}", "end")


def _draw_text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
