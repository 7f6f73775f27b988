"""Straight lines, fitted and drawn as SVG that is readable on white and on black."""

WIDTH, HEIGHT, GAP = 240, 228, 12  # of a panel, and between the panels
LEFT, TOP, BOTTOM = 52, 42, 40

STYLE = """
  text { font: 11px sans-serif; fill: #768390; }
  .title { font-size: 12px; }
  .axis { stroke: #768390; fill: none; }
  .grid { stroke: #768390; stroke-opacity: 0.25; }
  .fit { stroke: #4f8fdd; stroke-width: 1.5; }
  .point { fill: #2da44e; }
"""


def fit(xs, ys):
    """The straight line through the points by least squares: slope, value at 0, and R²."""
    count, mean_x, mean_y = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / sum((x - mean_x) ** 2 for x in xs)
    start = mean_y - slope * mean_x
    off = sum((y - start - slope * x) ** 2 for x, y in zip(xs, ys))
    spread = sum((y - mean_y) ** 2 for y in ys)
    assert count > 2
    return slope, start, 1 - off / spread


def nice_step(most):
    """The distance of some four marks on an axis up to `most`: 1, 2 or 5 times a power of ten."""
    step = 10.0 ** -6
    for factor in (2, 2.5, 2) * 20:
        if most / step <= 4.5:
            break
        step *= factor
    return step


def text(x, y, words, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{words}</text>'


def panel(left, x_title, title, xs, ys):
    slope, start, r2 = fit(xs, ys)
    step_x, step_y = nice_step(max(xs)), nice_step(max(ys))
    most_x, most_y = 1.05 * max(xs), 1.1 * max(ys)
    base, end = HEIGHT - BOTTOM, left + WIDTH - 8

    def at(x, y):
        return left + LEFT + x / most_x * (end - left - LEFT), base - y / most_y * (base - TOP)

    lines = [text(left + 4, 16, title, ' class="title"')]
    lines.append(text(left + 4, 32, f"{1000 * slope:.0f} µs each, R² = {r2:.4f}"))
    for mark in range(1, int(most_y / step_y) + 1):
        _, y = at(0, mark * step_y)
        lines.append(f'<path class="grid" d="M{left + LEFT} {y:.1f} H{end}"/>')
        lines.append(text(left + LEFT - 5, y + 4, f"{mark * step_y:g}", ' text-anchor="end"'))
    for mark in range(int(most_x / step_x) + 1):
        x, _ = at(mark * step_x, 0)
        lines.append(text(x, base + 14, f"{mark * step_x:g}", ' text-anchor="middle"'))
    lines.append(text((left + LEFT + end) / 2, base + 30, x_title, ' text-anchor="middle"'))
    (x1, y1), (x2, y2) = at(0, max(start, 0)), at(max(xs), start + slope * max(xs))
    lines.append(f'<path class="fit" d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}"/>')
    lines.append(f'<path class="axis" d="M{left + LEFT} {TOP} V{base} H{end}"/>')
    points = (at(x, y) for x, y in zip(xs, ys))
    return lines + [f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]


def draw(path, title, x_title, xs, panels):
    """Draws a panel for each title and values of `panels`, all of them over `xs`."""
    width = len(panels) * (WIDTH + GAP)
    label = f"{title}: {'; '.join(name for name, _ in panels)}, over the number of {x_title}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{label}">'
    body = [line for n, (name, ys) in enumerate(panels) for line in panel(n * (WIDTH + GAP), x_title, name, xs, ys)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([head, f"<style>{STYLE}</style>", *body, "</svg>", ""]))
