#!/usr/bin/env python3
"""Draw training and validation loss of a run as one SVG file; standard library only.

    python3 scripts/plot_metrics.py runs/tiny/metrics.jsonl curve.svg

The thin line is each step's own loss, the thick one its mean over 20 steps, the dots the
validation loss. Of a step that occurs twice (after a resume) the last line holds.
"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 20, 24, 48
SMOOTH = 20


def read(path):
    train, validation = {}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for name, series in (("loss", train), ("validation_loss", validation)):
                if record.get(name) is not None:
                    series[record["step"]] = record[name]
    return sorted(train.items()), sorted(validation.items())


def smooth(points):
    values, result = [], []
    for step, value in points:
        values = (values + [value])[-SMOOTH:]
        result.append((step, sum(values) / len(values)))
    return result


def ticks(low, high):
    raw = (high - low) / 6
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= raw)
    first = math.ceil(low / step)
    return [step * i for i in range(first, int(high / step) + 1)]


def main():
    train, validation = read(sys.argv[1])
    steps = [s for s, _ in train + validation]
    losses = [v for _, v in train + validation]
    x_max, y_min, y_max = max(steps), math.floor(min(losses)), math.ceil(max(losses))

    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / x_max

    def y(loss):
        return TOP + (HEIGHT - TOP - BOTTOM) * (y_max - loss) / (y_max - y_min)

    def line(points, style):
        path = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
        return f'<polyline points="{path}" fill="none" {style}/>'

    def text(px, py, value, anchor="middle"):
        return f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{value}</text>'

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12" fill="#333">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for value in ticks(y_min, y_max):
        out.append(line([(0, value), (x_max, value)], 'stroke="#ddd"'))
        out.append(text(LEFT - 8, y(value) + 4, f"{value:g}", "end"))
    for value in ticks(0, x_max):
        out.append(text(x(value), HEIGHT - BOTTOM + 18, f"{value:g}"))
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "step"))
    out.append(text(LEFT, TOP - 8, "loss per trained token (nats)", "start"))
    out.append(line(train, 'stroke="#b8cce4" stroke-width="0.7"'))
    out.append(line(smooth(train), 'stroke="#1f5fa8" stroke-width="1.8"'))
    out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.2" fill="#c8511b"/>'
            for s, v in validation]
    out.append(text(WIDTH - RIGHT - 8, TOP + 12,
                    '<tspan fill="#1f5fa8">training</tspan> '
                    '<tspan fill="#c8511b">● validation</tspan>', "end"))
    out.append("</svg>")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
