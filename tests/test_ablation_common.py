"""What arms can be compared by: heads that all runs found, and all comparisons together."""

import csv
import io

import numpy as np
import pytest

from mtnet_jax.ablation.comparing import compare
from mtnet_jax.ablation.tables import as_csv, as_latex, as_text, verdict
from tests.ablations import measured
from tests.test_ablation import RESULT

ERRORS = {"finds all": (10, 0), "misses some": (14, 10), "misses others": (18, 20)}


def runs_of(errors=None) -> dict:
    """Arm -> seed -> what was measured; 40 heads, of which an arm misses the first ones.

    The first 20 are hard: each arm is off by 50 degrees more there, where it finds them.
    """
    found = {}
    for number, (arm, (error, missed)) in enumerate((errors or ERRORS).items()):
        found[arm] = {}
        for seed in range(3):
            easy, hard = (
                measured(e, seed=10 * number + seed, missed=missed) for e in (error, error + 50)
            )
            rows = np.where(np.arange(40) < 20, hard.state.rows, easy.state.rows)
            found[arm][seed] = {"demo": easy._replace(state=easy.state._replace(rows=rows))}
    return found


RUNS = runs_of()
SET = compare(RUNS, "finds all", {"demo": ""})["demo"]
MADE = {**RESULT, "reference": "finds all", "sets": {"demo": SET}}


def test_errors_can_be_compared_on_the_heads_that_all_runs_found():
    common = SET["common"]
    assert (common["heads"], common["runs"]) == (20, 9)
    for arm, (error, _) in ERRORS.items():
        rows = [run["demo"].state.rows[20:] for run in RUNS[arm].values()]
        figures = common["arms"][arm]["overall"]
        for key, of_heads in (("geodesic_mean", np.mean), ("geodesic_median", np.median)):
            expected = np.mean([of_heads(each["geodesic"]) for each in rows])
            assert figures[key]["value"] == pytest.approx(expected)
            assert figures[key]["value"] == pytest.approx(error, abs=0.2)
        assert figures["mean_iou_matched"]["value"] == pytest.approx(1)
    own = [arm["overall"]["geodesic_mean"]["value"] for arm in SET["arms"].values()]
    assert own[0] > own[2]  # the best arm looks worse than the one that misses the hard half
    bins = common["arms"]["finds all"]["yaw_bins"]
    assert sum(each["truths"] for each in bins) == 20


def test_a_difference_of_medians_is_of_the_heads_that_both_found():
    apart = SET["differences"]["misses others"]["overall"]["geodesic_median"]
    assert apart["over_seeds"]["value"] == pytest.approx(8, abs=0.2)
    assert apart["heads"] == 20
    assert apart["over_groups"] is None


def test_what_is_written_has_common_heads_and_their_number():
    text, latex = as_text(MADE), as_latex(MADE)
    assert "of 20 heads all found" in text
    rows = csv.DictReader(io.StringIO(as_csv(MADE)))
    common = {
        r["arm"]: r["common_mean"] for r in rows if r["figure"] == "roll" and not r["abs_yaw"]
    }
    for arm, figures in SET["common"]["arms"].items():
        value = figures["overall"]["roll"]["value"]
        assert float(common[arm]) == value
        assert f"{arm} & 100.0" in latex
        assert f"{value:.2f}" in latex
    assert latex.count("of the 20 heads that all 9 runs found.}") == 2


def test_where_all_runs_found_no_head_the_tables_say_so():
    nothing = compare(runs_of({"a": (10, 0), "b": (10, 40)}), "a", {"demo": ""})
    assert nothing["demo"]["common"]["heads"] == 0
    made = {**MADE, "reference": "a", "sets": nothing}
    assert "heads all found" not in as_text(made)
    latex = as_latex(made)
    assert "b & -- & --" in latex
    assert latex.count("that each arm found: none was found by all runs.}") == 2


def test_differences_are_judged_beside_those_of_the_other_arms():
    """Of many arms that are all the same, some would be said to differ by chance alone."""

    def compared(arms: int) -> dict:
        """Arm -> its difference of the geodesic error, of which the first is a doubtful one."""
        runs = {"reference": {s: {"demo": measured(10, seed=s)} for s in range(3)}}
        for number in range(arms):
            for seed, more in enumerate((0.7, 0.9, 1.1) if number == 0 else (-0.5, 0, 0.5)):
                run = measured(10 + more, seed=100 * number + seed + 7)
                runs.setdefault(f"arm {number}", {})[seed] = {"demo": run}
        apart = compare(runs, "reference", {"demo": ""})["demo"]["differences"]
        return {arm: each["overall"]["geodesic_mean"] for arm, each in apart.items()}

    alone, among = compared(1)["arm 0"], compared(6)["arm 0"]
    assert alone["over_seeds"] == among["over_seeds"]
    assert verdict(alone) == "higher"
    assert among["p"] == pytest.approx(6 * alone["p"])
    assert verdict(among) == "not clear (higher, but one of several arms)"
