"""A table as an SVG: a line for each row, a dot for each contender, speed relative to native."""

from math import log10
from xml.sax.saxutils import escape

from bench.table import Table, title

WIDTH, LEFT, RIGHT, STEP, TOP = 960, 190, 24, 19, 64
LOWEST, HIGHEST = 0.001, 4.0  # times native; what is outside is drawn at the edge
COLOURS = ("#000000", "#d98c3f", "#b9a14a", "#8f8f8f", "#4f9bd9", "#1b5fae")
GUIDES = (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2, 4)
STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-weight:bold;font-size:14px}"
    ".g{stroke:#ddd}.n{stroke:#333}.r{text-anchor:end}.m{text-anchor:middle;fill:#777}"
)


def _x(ratio: float) -> float:
    """Where on the logarithmic scale a ratio is."""
    part = log10(min(HIGHEST, max(LOWEST, ratio)) / LOWEST) / log10(HIGHEST / LOWEST)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def svg(tables: list[Table]) -> str:
    """All tables, one below the other."""
    parts, y = [], 0
    for table in tables:
        parts.append(f'<g transform="translate(0 {y})">{_panel(table)}</g>')
        y += TOP + STEP * len(table.rows) + 32
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}">\n'
        f'<style>{STYLE}</style>\n<rect width="{WIDTH}" height="{y}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(table: Table) -> str:
    native, bottom = table.contenders[0], TOP + STEP * len(table.rows)
    lines = [f'<text class="t" x="8" y="20">{table.field}: times the speed of {native}</text>']
    x = LEFT
    for name, colour in zip(table.contenders[1:], COLOURS[1:], strict=False):
        lines.append(f'<circle cx="{x}" cy="36" r="5" fill="{colour}"/>')
        lines.append(f'<text x="{x + 9}" y="40">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    for guide in GUIDES:
        kind, at = "n" if guide == 1 else "g", _x(guide)
        lines.append(f'<path class="{kind}" d="M{at:.1f} {TOP - 8}V{bottom}"/>')
        lines.append(f'<text class="m" x="{at:.1f}" y="{bottom + 14}">{guide:g}</text>')
    for i, key in enumerate(table.rows):
        y = TOP + STEP * i
        lines.append(f'<text class="r" x="{LEFT - 10}" y="{y + 4}">{escape(title(key))}</text>')
        lines.append(f'<path class="g" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        for name, colour in zip(table.contenders[1:], COLOURS[1:], strict=False):
            ratio = table.ratio(key, name, native)
            if ratio is not None:
                tip = f"<title>{escape(name)}: {ratio:.2f}</title>"
                dot = f'cx="{_x(ratio):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity=".85"'
                lines.append(f"<circle {dot}>{tip}</circle>")
    return "\n".join(lines)
