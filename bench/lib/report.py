# SPDX-License-Identifier: Apache-2.0
"""From measurements (dicts, one per line of the JSON lines file) to the table
and the plot.

A ratio is an engine's CPU time over the native CPU time of the same workload
in the same repetition; a cell is the median over the repetitions with
min..max. A workload whose runs did not all end well shows the worst word
(WRONG, failed, timeout, n/a) and is in no mean."""
import math, statistics
from xml.sax.saxutils import escape

# From bad to good; a cell shows the first that happened.
WORDS = ["WRONG", "failed", "timeout", "n/a", "ok"]
PEER = "qemu"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values \
        else None


class Cell:
    """One engine's column for one workload."""

    def __init__(self, word, ratios):
        self.word, self.ratios = word, ratios
        self.median = statistics.median(ratios) if ratios else None

    def text(self):
        if self.word != "ok":
            return self.word
        if self.median is None:
            return "-"
        return "%.2fx (%.2f..%.2f)" % (self.median, min(self.ratios),
                                       max(self.ratios))


class Row:
    def __init__(self, name, group, lines):
        self.name, self.group = name, group
        native = {m["rep"]: m["cpu_s"] for m in lines
                  if m["engine"] == "native" and m["status"] == "ok"}
        self.native_word = worst(m for m in lines if m["engine"] == "native")
        self.native_s = statistics.median(native.values()) if native else None
        self.cells = {}
        for engine in dict.fromkeys(m["engine"] for m in lines):
            if engine == "native":
                continue
            mine = [m for m in lines if m["engine"] == engine]
            word = worst(mine)
            if word == "ok" and self.native_word != "ok":
                word = "n/a"
            ratios = [m["cpu_s"] / native[m["rep"]] for m in mine
                      if word == "ok" and native.get(m["rep"])]
            self.cells[engine] = Cell(word, ratios)


def worst(lines):
    return min((m["status"] for m in lines), key=WORDS.index, default="n/a")


class Report:
    def __init__(self, lines):
        lines = [m for m in lines if m.get("bench") == "run"]
        names = dict.fromkeys(m["workload"] for m in lines)
        self.rows = []
        for name in names:
            mine = [m for m in lines if m["workload"] == name]
            self.rows.append(Row(name, mine[0]["group"], mine))
        self.groups = list(dict.fromkeys(r.group for r in self.rows))
        self.rows.sort(key=lambda r: self.groups.index(r.group))
        self.engines = list(dict.fromkeys(e for r in self.rows
                                          for e in r.cells))
        self.has_wrong = any(m["status"] in ("WRONG", "failed")
                             for m in lines)
        self.is_complete = all(m["status"] in ("ok", "n/a") for m in lines)
        self.reps = 1 + max((m["rep"] for m in lines), default=-1)

    def mean(self, engine, group=None):
        """(geometric mean of the medians or None, how many are in it)."""
        values = [r.cells[engine].median for r in self.rows
                  if engine in r.cells and r.cells[engine].median and
                  (group is None or r.group == group)]
        return geometric_mean(values), len(values)

    def slower_than_peer(self, engine="skerry"):
        """Workloads in which the engine takes more than the peer."""
        return [r.name for r in self.rows
                if {engine, PEER} <= r.cells.keys() and
                r.cells[engine].median and r.cells[PEER].median and
                r.cells[engine].median > r.cells[PEER].median]

    def table(self):
        head = ["workload", "group", "native CPU s"] + self.engines
        body = []
        for group in self.groups:
            for r in self.rows:
                if r.group != group:
                    continue
                native = "%.3f" % r.native_s if r.native_word == "ok" \
                    else r.native_word
                body.append([r.name, group, native] + [
                    r.cells[e].text() if e in r.cells else "-"
                    for e in self.engines])
            body.append(self.mean_line("geometric mean", group))
        body.append(self.mean_line("geometric mean", None))
        widths = [max(len(line[i]) for line in [head] + body)
                  for i in range(len(head))]
        out = ["  ".join(x.ljust(w) for x, w in zip(line, widths)).rstrip()
               for line in [head, ["-" * w for w in widths]] + body]
        if {"skerry", PEER} <= set(self.engines):
            slow = self.slower_than_peer()
            out.append("slower than %s: %s" % (PEER, ", ".join(slow) or
                                               "none"))
        return "\n".join(out) + "\n"

    def mean_line(self, name, group):
        line = [name, group or "all", ""]
        for e in self.engines:
            mean, count = self.mean(e, group)
            line.append("%.2fx over %d" % (mean, count) if mean else "-")
        return line

    def svg(self, title="CPU time against native"):
        return Plot(self, title).draw()


# The classes of a plot: for readers with a light and with a dark page.
STYLE = """<style>
.page { fill: #ffffff } text { fill: #1f2328 }
.grid { stroke: #d8dee4 } .one, .spread { stroke: #1f2328 }
.skerry { fill: #1f77b4 } .qemu { fill: #c96a28 } .other { fill: #777777 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 }
.grid { stroke: #30363d } .one, .spread { stroke: #e6edf3 }
.skerry { fill: #4a9be0 } .qemu { fill: #e08a4a } .other { fill: #999999 }
}
</style>"""


def class_of(engine):
    return engine if engine in ("skerry", "qemu") else "other"


class Plot:
    """Bars on a logarithmic axis, a group after the other, with whiskers
    from min to max and the geometric means."""
    LEFT, RIGHT, TOP, BAR, WIDTH = 150, 70, 64, 9, 860

    def __init__(self, report, title):
        self.report, self.title, self.out = report, title, []
        tops = [max(c.ratios) for r in report.rows for c in r.cells.values()
                if c.ratios]
        lows = [min(c.ratios) for r in report.rows for c in r.cells.values()
                if c.ratios]
        # A step around, so that the longest bar leaves room for its number.
        self.low = math.floor(math.log10(min(lows + [0.9])) * 2) / 2
        self.high = math.ceil(math.log10(max(tops + [9])) * 2) / 2
        self.row = self.BAR * max(1, len(report.engines)) + 6

    def x(self, ratio):
        part = (math.log10(ratio) - self.low) / (self.high - self.low)
        return self.LEFT + part * (self.WIDTH - self.LEFT - self.RIGHT)

    def text(self, x, y, words, more=""):
        self.out.append('<text x="%.1f" y="%.1f"%s>%s</text>' %
                        (x, y, more and " " + more, escape(words)))

    def bar(self, y, engine, value, spread, is_bold):
        zero = self.x(10**self.low)
        self.out.append(
            '<rect x="%.1f" y="%.1f" width="%.1f" height="%d" class="%s"/>' %
            (zero, y, self.x(value) - zero, self.BAR - 1,
             class_of(engine)))
        end = value
        if spread:
            middle = y + (self.BAR - 1) / 2
            end = max(spread)
            self.out.append(
                '<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" '
                'class="spread"/>' % (self.x(min(spread)), self.x(end),
                                      middle, middle))
        self.text(self.x(end) + 4, y + self.BAR - 1, "%.2f" % value,
                  'font-weight="bold"' if is_bold else "")

    def line(self, y, name, cells, is_bold=False):
        """cells: engine -> (value or None, spread, word)."""
        more = 'text-anchor="end"' + (' font-weight="bold"' if is_bold
                                      else "")
        self.text(self.LEFT - 6, y + self.row / 2 + 1, name, more)
        for engine in self.report.engines:
            value, spread, word = cells.get(engine, (None, None, "-"))
            if value:
                self.bar(y, engine, value, spread, is_bold)
            else:
                self.text(self.LEFT + 4, y + self.BAR - 1,
                          "%s: %s" % (engine, word))
            y += self.BAR

    def draw(self):
        report, y = self.report, self.TOP
        for group in report.groups + [None]:
            for r in report.rows:
                if r.group == group:
                    self.line(y, r.name, {
                        e: (c.median, c.ratios, c.word)
                        for e, c in r.cells.items()})
                    y += self.row
            self.line(y, (group or "all") + ", mean", {
                e: (report.mean(e, group)[0], None, "-")
                for e in report.engines}, True)
            y += self.row + 10
        return self.frame(y)

    def frame(self, height):
        body, self.out = self.out, []
        self.text(12, 20, self.title, 'font-size="15"')
        x = self.LEFT
        for e in self.report.engines:
            self.out.append('<rect x="%d" y="30" width="10" height="10" '
                            'class="%s"/>' % (x, class_of(e)))
            self.text(x + 14, 39, e)
            x += 90
        for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
            if not self.low <= math.log10(step) <= self.high:
                continue
            self.out.append(
                '<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="%s"/>' %
                (self.x(step), self.x(step), self.TOP - 6, height,
                 "one" if step == 1 else "grid"))
            self.text(self.x(step), self.TOP - 9, "%gx" % step,
                      'text-anchor="middle"')
        return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" '
                'height="%d" viewBox="0 0 %d %d" font-family="sans-serif" '
                'font-size="9">\n%s\n<rect width="100%%" height="100%%" '
                'class="page"/>\n%s\n</svg>\n' %
                (self.WIDTH, height + 10, self.WIDTH, height + 10, STYLE,
                 "\n".join(self.out + body)))
