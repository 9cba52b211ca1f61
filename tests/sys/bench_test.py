#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness itself: its options, and the arithmetic of the table
and the plot on measurements that were made up. Nothing is measured here."""
import json, math, os, re, subprocess, sys
import xml.etree.ElementTree as xml

from guest import Suite, has, same, tmp, top

RUN = os.path.join(top, "bench/run")


def bench(*args, tool=RUN):
    r = subprocess.run([tool, *args], stdin=subprocess.DEVNULL, text=True,
                       capture_output=True, timeout=60)
    return r.returncode, r.stdout, r.stderr


def made_up(*points):
    """(workload, group, engine, rep, CPU s, status) as JSON lines."""
    path = os.path.join(tmp, "made-up.jsonl")
    with open(path, "w") as f:
        for w, g, e, rep, cpu, status in points:
            f.write(json.dumps({"bench": "run", "workload": w, "group": g,
                                "engine": e, "rep": rep, "cpu_s": cpu,
                                "status": status}) + "\n")
    return path


def cells(text):
    """name -> the columns after it, of the lines of a table."""
    return {(w[0], w[1]): w[2:] for w in
            (re.split(r"  +", line.strip()) for line in text.splitlines())
            if len(w) > 2}


TWO = [("a", "integer", "native", 0, 1.0, "ok"),
       ("a", "integer", "native", 1, 2.0, "ok"),
       ("a", "integer", "native", 2, 1.0, "ok"),
       ("a", "integer", "skerry", 0, 2.0, "ok"),
       ("a", "integer", "skerry", 1, 6.0, "ok"),
       ("a", "integer", "skerry", 2, 8.0, "ok"),
       ("b", "float", "native", 0, 0.5, "ok"),
       ("b", "float", "skerry", 0, 6.0, "ok"),
       ("a", "integer", "qemu", 0, 2.5, "ok"),
       ("b", "float", "qemu", 0, 20.0, "ok")]


def list_names_at_least_26_workloads_in_four_groups():
    rc, out, _ = bench("--list")
    same(rc, 0)
    lines = [line.split()[:2] for line in out.splitlines()]
    assert len(lines) >= 26 and len({n for n, _ in lines}) == len(lines), out
    same({g for _, g in lines}, {"integer", "float", "applications",
                                 "kernel"})


def only_and_group_and_quick_choose_workloads():
    rc, out, _ = bench("--list", "--only", "sha256-*")
    same([line.split()[0] for line in out.splitlines()],
         ["sha256-c", "sha256-ni"])
    rc, out, _ = bench("--list", "--group", "float")
    same({line.split()[1] for line in out.splitlines()}, {"float"})
    rc, out, _ = bench("--list", "--quick")
    same({line.split()[1] for line in out.splitlines()},
         {"integer", "float", "applications", "kernel"})
    assert len(out.splitlines()) < len(bench("--list")[1].splitlines()) / 2


def wrong_options_end_with_status_2_and_say_why():
    for args, words in [(["--only", "no-such"], "no workload"),
                        (["--engines", "native,bochs"], "bochs"),
                        (["--engines", "skerry"], "native"),
                        (["--engines", "native,native"], "once"),
                        (["--reps", "0"], "--reps"),
                        (["--group", "games"], "games"),
                        (["--nonsense"], "--nonsense")]:
        rc, _, err = bench(*args)
        same(rc, 2, err)
        has(err, words)


def results_that_cannot_be_read_end_with_status_1():
    rc, _, err = bench("--from", os.path.join(tmp, "absent"))
    same(rc, 1)
    has(err, "absent")
    bad = os.path.join(tmp, "bad.jsonl")
    with open(bad, "w") as f:
        f.write("{not json\n")
    same(bench("--from", bad)[0], 1)


def a_cell_is_the_median_of_ratios_taken_repetition_by_repetition():
    rc, out, err = bench("--from", made_up(*TWO))
    same(rc, 0, err)
    # 2/1, 6/2, 8/1: not the ratio of the medians, which would be 6.
    same(cells(out)["a", "integer"][:2], ["1.000", "3.00x (2.00..8.00)"])


def means_are_geometric_over_the_medians():
    table = cells(bench("--from", made_up(*TWO))[1])
    same(table["geometric mean", "all"],
         ["%.2fx over 2" % math.sqrt(3 * 12),
          "%.2fx over 2" % math.sqrt(2.5 * 40)])
    same(table["geometric mean", "float"], ["12.00x over 1", "40.00x over 1"])


def workloads_in_which_the_peer_is_faster_are_named():
    has(bench("--from", made_up(*TWO))[1], "slower than qemu: a\n")


def a_bad_run_is_shown_and_is_in_no_mean():
    for status, rc in (("WRONG", 1), ("failed", 1), ("timeout", 1),
                       ("n/a", 0)):
        lines = TWO + [("c", "float", "native", 0, 1.0, "ok"),
                       ("c", "float", "skerry", 0, 100.0, "ok"),
                       ("c", "float", "skerry", 1, 100.0, status)]
        got, out, _ = bench("--from", made_up(*lines))
        same(got, rc, out)
        same(cells(out)["c", "float"][1], status)
        same(cells(out)["geometric mean", "all"][0], "6.00x over 2")


def wrong_stands_before_every_other_word():
    lines = [("c", "float", "native", 0, 1.0, "ok"),
             ("c", "float", "skerry", 0, 1.0, "timeout"),
             ("c", "float", "skerry", 1, 1.0, "WRONG")]
    same(cells(bench("--from", made_up(*lines))[1])["c", "float"][1], "WRONG")


def the_plot_is_well_formed_and_bars_grow_with_the_logarithm():
    path = os.path.join(tmp, "plot.svg")
    rc, _, err = bench("--from", made_up(*TWO), "--svg", path)
    same(rc, 0, err)
    space = "{http://www.w3.org/2000/svg}"
    tree = xml.parse(path).getroot()
    words = [t.text for t in tree.iter(space + "text")]
    for word in ("a", "b", "all, mean", "3.00", "12.00", "6.00"):
        assert word in words, words
    blue = [float(r.get("width")) for r in tree.iter(space + "rect")
            if r.get("fill") == "#1f77b4" and r.get("height") == "8"]
    # In order: a 3, its group's mean 3, b 12, its group's mean 12, all 6.
    same(len(blue), 5)
    step = blue[2] - blue[0]  # a factor of 4
    assert abs((blue[4] - blue[0]) * 2 - step) < 0.5, blue


def wrong_options_of_the_other_tools_end_with_status_2():
    for tool, args, words in [
            ("boot", ["--engine", "bochs"], "--engine"),
            ("machine", ["--case", "games"], "games"),
            ("machine", ["--engines", "bochs"], "bochs"),
            ("machine", ["--cpus", "x"], "above 0"),
            ("machine", ["--minutes", "0"], "above 0")]:
        rc, _, err = bench(*args, tool=os.path.join(top, "bench", tool))
        same(rc, 2, err)
        has(err, words)


suite = Suite()
for test in (list_names_at_least_26_workloads_in_four_groups,
             only_and_group_and_quick_choose_workloads,
             wrong_options_end_with_status_2_and_say_why,
             results_that_cannot_be_read_end_with_status_1,
             a_cell_is_the_median_of_ratios_taken_repetition_by_repetition,
             means_are_geometric_over_the_medians,
             workloads_in_which_the_peer_is_faster_are_named,
             a_bad_run_is_shown_and_is_in_no_mean,
             wrong_stands_before_every_other_word,
             the_plot_is_well_formed_and_bars_grow_with_the_logarithm,
             wrong_options_of_the_other_tools_end_with_status_2):
    suite.check(test)
suite.end()
