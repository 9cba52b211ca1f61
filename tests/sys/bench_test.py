#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness itself: its options, and the arithmetic of the table
and the plot on measurements that were made up. Nothing is measured here."""
import argparse, importlib.machinery, importlib.util, io, json, math, os, re
import subprocess, sys
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
            if r.get("class") == "skerry" and r.get("height") == "8"]
    # In order: a 3, its group's mean 3, b 12, its group's mean 12, all 6.
    same(len(blue), 5)
    step = blue[2] - blue[0]  # a factor of 4
    assert abs((blue[4] - blue[0]) * 2 - step) < 0.5, blue


def load_run():
    """bench/run as a module."""
    loader = importlib.machinery.SourceFileLoader("bench_run", RUN)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("bench_run", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def play(script, engines=("native", "skerry"), reps=1):
    """bench/run's loop over engines that answer as the script says:
    script[engine, workload] is (exit, output), or "hang", or "gone". Returns
    ({(workload, engine, rep): status}, starts of each engine, its ends)."""
    run = load_run()
    starts, ends = [], []

    class Fake:
        def __init__(self, name):
            self.name = name

        def settle(self):
            pass

        def start(self, **more):
            starts.append(self.name)
            if script.get((self.name, "boot")) == "gone":
                raise run.engines.Gone("no boot")

        def run(self, command, limit):
            name = re.search(r"\((\w+)\)", command).group(1)
            answer = script[self.name, name]
            if answer == "hang":
                raise run.engines.Hang("no answer in time")
            if answer == "gone":
                raise run.engines.Gone("the machine ended")
            return {"exit": answer[0], "output": answer[1], "cpu_s": 1.0}

        def end(self):
            ends.append(self.name)

    run.engines.engines = {
        e: (lambda name: lambda memory_mib: Fake(name))(e) for e in engines}
    run.assets.say = lambda text: None
    names = list(dict.fromkeys(w for _, w in script if w != "boot"))
    options = argparse.Namespace(
        reps=reps, engines=list(engines), limit=9, memory=1024,
        skerry_engine="soft", workloads=[
            run.catalog.Workload(n, "integer", n, False) for n in names])
    out = io.StringIO()
    lines = run.measure_all(options, out)
    same([json.loads(x) for x in out.getvalue().splitlines()], lines)
    return ({(m["workload"], m["engine"], m["rep"]): m["status"]
             for m in lines}, starts, ends)


def an_answer_unlike_the_native_one_is_wrong():
    got, _, _ = play({("native", "a"): (0, "1"), ("skerry", "a"): (0, "2"),
                      ("native", "b"): (0, "3"), ("skerry", "b"): (0, "3")})
    same(got, {("a", "native", 0): "ok", ("a", "skerry", 0): "WRONG",
               ("b", "native", 0): "ok", ("b", "skerry", 0): "ok"})


def statuses_of_workloads_are_told_apart():
    got, _, _ = play({("native", "a"): (0, "1"), ("skerry", "a"): (999, ""),
                      ("native", "b"): (0, "1"), ("skerry", "b"): (77, ""),
                      ("native", "c"): (0, "1"), ("skerry", "c"): (139, ""),
                      ("native", "d"): (77, ""), ("skerry", "d"): (0, "1")})
    same([got[w, "skerry", 0] for w in "abcd"],
         ["timeout", "n/a", "failed", "n/a"])


def a_guest_that_hangs_is_ended_and_the_others_results_stay():
    got, starts, ends = play(
        {("native", "a"): (0, "1"), ("skerry", "a"): (0, "1"),
         ("native", "b"): (0, "1"), ("skerry", "b"): "hang",
         ("native", "c"): (0, "1"), ("skerry", "c"): "gone",
         ("native", "d"): (0, "1"), ("skerry", "d"): (0, "1")}, reps=2)
    same([got.get((w, "skerry", 0)) for w in "abcd"],
         ["ok", "timeout", "failed", "ok"])
    same([got.get((w, "skerry", 1)) for w in "abcd"],
         ["ok", None, "failed", "ok"])  # what hung is not tried again
    same(starts.count("skerry"), 4)
    same(ends.count("skerry"), 4)
    same(ends.count("native"), 1)


def an_engine_that_does_not_boot_is_given_up():
    script = {("skerry", "boot"): "gone"}
    for w in "abcde":
        script["native", w] = script["skerry", w] = (0, "1")
    got, starts, ends = play(script)
    same({got[w, "skerry", 0] for w in "abcde"}, {"failed"})
    same({got[w, "native", 0] for w in "abcde"}, {"ok"})
    same((starts.count("skerry"), ends.count("skerry")), (2, 2))


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
             an_answer_unlike_the_native_one_is_wrong,
             statuses_of_workloads_are_told_apart,
             a_guest_that_hangs_is_ended_and_the_others_results_stay,
             an_engine_that_does_not_boot_is_given_up,
             wrong_options_of_the_other_tools_end_with_status_2):
    suite.check(test)
suite.end()
