"""The benchmarks' stopwatch: turns, environments, ratios, failures that are told."""

import json
import os
import time

import pytest

from benchmarks.timing import Contender, Result, Sample, machine, measure, ratio, table, write_json


def make_sleep(seconds):
    return lambda: time.sleep(seconds), {"slept": seconds}


def make_allocation(megabytes):
    return lambda: bytearray(b"x") * (megabytes * 10**6), {}


def make_check_of_environment():
    assert os.environ["MTNET_BENCHMARK_TEST"] == "here"
    return lambda: None, {}


def make_failure():
    raise ValueError("no such thing to measure")


def test_contenders_are_timed_in_their_own_environment():
    variable = {"MTNET_BENCHMARK_TEST": "here"}
    contenders = {
        "short": Contender(make_sleep, {"seconds": 0.01}),
        "long": Contender(make_sleep, {"seconds": 0.03}),
        "large": Contender(make_allocation, {"megabytes": 300}),
        "other environment": Contender(make_check_of_environment, {}, variable),
    }
    results = measure(contenders, turns=3, runs=2)
    assert "MTNET_BENCHMARK_TEST" not in os.environ
    assert [len(result.samples) for result in results.values()] == [3] * 4
    assert results["long"].facts == {"slept": 0.03}
    assert results["short"].median() >= 0.01
    assert results["long"].median() >= 0.03
    assert results["short"].median("cpu_seconds") < 0.009
    assert results["large"].median("peak_mb") > results["short"].median("peak_mb") + 200


def test_a_failure_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match="no such thing to measure"):
        measure({"broken": Contender(make_failure)}, turns=1)


def result_of(*seconds):
    return Result([Sample(s, 0, 0, 0) for s in seconds], {})


def test_ratios_are_taken_turn_by_turn():
    # A turn that is slow for both does not move the ratio.
    assert ratio(result_of(2, 20, 4), result_of(1, 10, 2)) == (2, 2, 2)


def test_table_and_json(tmp_path):
    results = {"ours": result_of(1, 1), "theirs": result_of(1, 2)}
    assert "1.500 (1.250 to 1.750)" in table(results)
    write_json(tmp_path / "a" / "b.json", results, {"size": 3})
    written = json.loads((tmp_path / "a" / "b.json").read_text())
    assert written["settings"] == {"size": 3}
    assert [s["seconds"] for s in written["results"]["theirs"]["samples"]] == [1, 2]
    assert written["machine"]["cores"] == machine()["cores"] >= 1
