"""A chart of a bench, as SVG: for each work a bar as long as Snappy's time is a part of restic's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.figures import Figure, Line
from bench.report import Row

WIDTH, LEFT, RIGHT, STEP, TOP = 960, 330, 60, 26, 56
GOOD, BAD, PLAIN, INK = "#2b8a3e", "#c92a2a", "#4c6ef5", "#343a40"
FONT = 'font-family="sans-serif" font-size="12"'
HEIGHT = 420


def bars(rows: Sequence[Row], title: str) -> str:
    """Green meets its aim, red misses it, blue has none. A whisker is the spread over the pairs, a black mark the aim;
    the grey line is restic."""
    shown = [(row, row.wall_ratio) for row in rows if row.wall_ratio]
    longest = max([1.2, *(ratio.most for _, ratio in shown)])
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = TOP + STEP * len(shown) + 20
    parts = [_text(10, 22, title, "font-weight='bold'"), _text(10, 40, "wall time, Snappy's ÷ restic's")]
    parts.append(_rule(LEFT + scale, TOP - 6, LEFT + scale, height - 14, "#868e96"))
    parts.append(_text(LEFT + scale + 4, TOP - 8, "restic"))
    for number, (row, ratio) in enumerate(shown):
        parts += _bar(row, ratio, TOP + STEP * number, scale)
    return _svg(WIDTH, height, parts)


def _bar(row: Row, ratio: Figure, y: int, scale: float) -> list[str]:
    met = row.verdicts().get("wall")
    colour = PLAIN if met is None else GOOD if met else BAD
    middle = y + STEP / 2 - 3
    parts = [_text(10, y + 14, row.title)]
    parts.append(f'<rect x="{LEFT}" y="{y}" width="{ratio.median * scale:.1f}" height="{STEP - 6}" fill="{colour}"/>')
    parts.append(_rule(LEFT + ratio.least * scale, middle, LEFT + ratio.most * scale, middle, INK))
    if row.aim is not None:
        parts.append(_rule(LEFT + row.aim * scale, y - 2, LEFT + row.aim * scale, y + STEP - 4, "black", 3))
    beyond = max(ratio.most, row.aim or 0.0) * scale + 6
    parts.append(_text(LEFT + beyond, y + 14, f"{ratio.median:.2f}"))
    return parts


def growth(points: Sequence[tuple[float, float]], line: Line, title: str, unit: str, measured: str) -> str:
    """Points of (amount, value) and the line that was fitted to them, on plain axes."""
    width, height, left, bottom = 640, HEIGHT, 80, HEIGHT - 50
    most_x, most_y = max(x for x, _ in points), max(max(y for _, y in points), line.at(max(x for x, _ in points)))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / most_x * (width - left - 40), bottom - y / most_y * (bottom - 50)

    start, end = at(0, max(0.0, line.at(0))), at(most_x, line.at(most_x))
    parts = [_text(10, 22, title, "font-weight='bold'"), _rule(*start, *end, PLAIN, 2)]
    parts += [_rule(left, bottom, width - 20, bottom, INK), _rule(left, bottom, left, 40, INK)]
    for x, y in points:
        across, down = at(x, y)
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{BAD}"/>')
        parts.append(_text(across - 30, down - 10, f"{y:,.1f} {measured}"))
        parts.append(_text(across - 20, bottom + 18, f"{x:,.0f}"))
    parts.append(_text(width / 2, bottom + 38, unit))
    return _svg(width, height, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    background = f'<rect width="{width:g}" height="{height:g}" fill="white"/>'
    size = f'width="{width:g}" height="{height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>\n{background}\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"/>'
