"""docs/program-figures.md and its plots, of the rounds that were measured."""

import html
import statistics

COLOURS = {"plain": "#8a8a8a", "off": "#d08b2c", "san": "#2c6fd0"}
NAMES = {"plain": "plain TCP", "off": "SAN off", "san": "SAN"}
BAR, GAP, LABEL, WIDTH = 13, 12, 300, 560


def values(rounds, mode, key):
    return [turn[mode][key][0] for turn in rounds if key in turn.get(mode, {})]


def shares(rounds, mode, key):
    return [turn[mode][key][1] for turn in rounds
            if key in turn.get(mode, {}) and turn[mode][key][1] is not None]


def ratios(rounds, mode, key):
    """Of what was measured in the same round."""
    return [turn[mode][key][0] / turn["plain"][key][0] for turn in rounds
            if key in turn.get(mode, {}) and turn.get("plain", {}).get(key, [0])[0]]


def number(value):
    return f"{value:,.0f}"


def verdict(figure, ratio):
    if figure.target is None:
        return ""
    met = ratio >= figure.target if figure.more else ratio <= figure.target
    return f"{figure.target:g}x: {'met' if met else 'missed'}"


# What loading the library may cost without using it.
OFF = 0.02


def off_verdict(figure, pairs):
    """Of the SAN being off: whether that is no more than what is wanted away from plain."""
    if not pairs:
        return ""
    ratio = statistics.median(pairs)
    worse = 1 - ratio if figure.more else ratio - 1
    return "met" if round(worse, 3) <= OFF else f"missed: {worse:.1%} worse"


def spread(pairs):
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})" if pairs else ""


def rows(everything, loads):
    for name, load in loads.items():
        rounds = everything["rounds"].get(name, [])
        for key, figure in load.figures.items():
            if values(rounds, "plain", key) and values(rounds, "san", key):
                yield name, key, figure, rounds


def table(everything, loads):
    lines = ["| | plain | plain : plain | SAN off | off : plain | within 2 % | SAN | SAN : plain | wanted | "
             "bytes over the SAN |", "|---|---|---|---|---|---|---|---|---|---|"]
    for _, key, figure, rounds in rows(everything, loads):
        cells = [f"{figure.text} ({figure.unit})", number(statistics.median(values(rounds, "plain", key))),
                 spread(ratios(rounds, "again", key))]
        for mode in ("off", "san"):
            got, pairs = values(rounds, mode, key), ratios(rounds, mode, key)
            cells.append(number(statistics.median(got)) if got else "")
            cells.append(spread(pairs))
            if mode == "off":
                cells.append(off_verdict(figure, pairs))
        pairs = ratios(rounds, "san", key)
        cells.append(verdict(figure, statistics.median(pairs)) if pairs else "")
        share = shares(rounds, "san", key)
        cells.append(f"{statistics.median(share):.1%}" if share else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(everything, loads, more):
    """One bar for each mode, as parts of plain."""
    bars, at = [], 30
    chosen = [row for row in rows(everything, loads) if row[2].more == more and row[0] != "idle"]
    ends = [statistics.median(ratios(rounds, mode, key))
            for _, key, _, rounds in chosen for mode in ("off", "san") if ratios(rounds, mode, key)]
    scale = WIDTH / max([1.5, *ends])
    for _, key, figure, rounds in chosen:
        bars.append(f'<text x="{LABEL - 8}" y="{at + 2 * BAR}" text-anchor="end">'
                    f"{html.escape(figure.text)}</text>")
        for mode in COLOURS:
            pairs = ratios(rounds, mode, key)
            if not pairs:
                continue
            ratio = statistics.median(pairs)
            low, high = LABEL + min(pairs) * scale, LABEL + min(max(pairs) * scale, WIDTH + 60)
            bars.append(f'<rect x="{LABEL}" y="{at}" width="{ratio * scale:.1f}" height="{BAR - 2}" '
                        f'fill="{COLOURS[mode]}"/>')
            if mode != "plain":
                middle = at + BAR / 2 - 1
                bars.append(f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#000" fill="none"/>')
            bars.append(f'<text x="{LABEL + WIDTH + 80}" y="{at + BAR - 3}" text-anchor="end">{ratio:.2f}</text>')
            at += BAR
        at += GAP
    line = LABEL + scale
    key = "".join(f'<rect x="{LABEL + 110 * place}" y="6" width="12" height="12" fill="{colour}"/>'
                  f'<text x="{LABEL + 110 * place + 17}" y="16">{NAMES[mode]}</text>'
                  for place, (mode, colour) in enumerate(COLOURS.items()))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 90}" height="{at}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{key}'
            f'<path d="M{line:.1f} 24V{at}" stroke="#8a8a8a" stroke-dasharray="3 3"/>{"".join(bars)}</svg>\n')


def write(root, everything, loads):
    """Between the marks in the document; the words around them are written by hand."""
    document = root / "docs" / "program-figures.md"
    begin, end = "<!-- figures: begin -->", "<!-- figures: end -->"
    machine = everything["machine"]
    counts = sorted({len(rounds) for rounds in everything["rounds"].values()})
    span = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    remark = f" {everything['remark']}" if everything.get("remark") else ""
    text = (f"Measured {machine['date']} on {machine['cpus']} processors ({machine['cpu']}), Linux "
            f"{machine['kernel']}; {span} rounds; medians, in brackets the least and the greatest ratio of "
            f"a round.{remark}\n\n{table(everything, loads)}\n\n"
            "Rates, as parts of plain (longer is better; the line is the span of the rounds):\n\n"
            "![rates](program-rates.svg)\n\nMedian times, as parts of plain (shorter is better):\n\n"
            "![times](program-times.svg)")
    before, rest = document.read_text().split(begin)
    after = rest.split(end)[1]
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    for name, more in (("program-rates.svg", True), ("program-times.svg", False)):
        (root / "docs" / name).write_text(plot(everything, loads, more))
