"""Curves: numbers over epochs as inline SVG, coloured by the page that holds them."""

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 22
Points = Sequence[tuple[float, float]]


def curve(points: Points, dashed: float | None = None) -> str:
    """One line through the finite points, with ticks; `dashed` draws a level to hold it against."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    levels = [y for _, y in finite] + ([dashed] if dashed is not None else [])
    across, up = _span([x for x, _ in finite]), _span(levels)
    at = [(_place(x, across, LEFT, WIDTH - RIGHT), _place(y, up, HEIGHT - BOTTOM, TOP)) for x, y in finite]
    parts = [_rule(y, _place(y, up, HEIGHT - BOTTOM, TOP)) for y in ticks(*up)]
    whole = [x for x in ticks(*across) if x == int(x)]
    parts += [_label(_place(x, across, LEFT, WIDTH - RIGHT), HEIGHT - 6, f"{x:g}", "middle") for x in whole]
    if dashed is not None:
        y = _place(dashed, up, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>')
    hover, kind = zip(at, finite, strict=True), "dot" if len(finite) == 1 else "hover"
    parts += [
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{e:g}: {v:.4g}</title></circle>'
        for (x, y), (e, v) in hover
    ]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers within a span: about `wanted` of them, 1, 2 or 5 times a power of ten apart."""
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= wanted)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest; what hardly differs lies in the middle."""
    low, high = min(values), max(values)
    room = 0.0 if high - low > 1e-3 * max(abs(low), abs(high)) else max(abs(low) / 2, 0.5)
    return low - room, high + room


def _place(value: float, span: tuple[float, float], first: float, last: float) -> float:
    return first + (value - span[0]) / (span[1] - span[0]) * (last - first)


def _rule(value: float, y: float) -> str:
    line = f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _label(LEFT - 6, y + 3.5, f"{value:.4g}", "end")


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
