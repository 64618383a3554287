"""The tables, files and plots of an evaluation."""

import json
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.evaluation import plots
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.plots import plot_geodesic, plot_pose_by_yaw, plot_precision_recall
from mtnet_jax.evaluation.report import as_json, format_bins, format_table, write_report
from mtnet_jax.evaluation.summary import format_summary
from mtnet_jax.outputs import Outputs
from tests.evaluations import NOTHING, a_pred, a_truth, random_pairs
from tests.image_files import written


def test_tables_show_the_numbers_and_systems():
    results = {"network": evaluate(random_pairs(1)), "constant": evaluate([(NOTHING, a_truth([]))])}
    lines = format_table(results).splitlines()
    row = next(line for line in lines if line.startswith("AP50 "))
    assert row.split() == ["AP50", f"{100 * results['network']['detection']['ap50']:.1f}%", "-"]
    assert "score >= 0.3" in lines[0]
    assert len({len(line) for line in lines if line.startswith("---")}) == 1
    bins = format_bins(results).splitlines()
    assert len(bins) == 4 * 8 + 2 * 7 + 5
    assert bins[7].startswith("150-180°")
    assert bins[-1].startswith("256- px")


def test_results_of_different_settings_are_not_put_side_by_side():
    results = {"a": evaluate([]), "b": evaluate([], score_threshold=0.1)}
    with pytest.raises(ValueError, match="settings"):
        format_table(results)
    with pytest.raises(ValueError, match="No results"):
        format_table({})


def test_report_files(tmp_path):
    results = {"network": evaluate(random_pairs(1)), "constant": evaluate([])}
    paths = write_report(Outputs("eval"), results, tmp_path / "report")
    assert sorted(p.name for p in paths) == written(tmp_path / "report")
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == results
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="JSON"):
        as_json({"network": {"ap": math.nan}})


def test_headings_are_drawn_where_no_pose_is_labelled(tmp_path, monkeypatch):
    truth = {**a_truth([[0, 0, 9, 9]]), "headings": np.zeros(1), "has_heading": np.array([True])}
    found = evaluate([(a_pred([[0, 0, 9, 9]], [0.9]), truth)])
    draw, drawn = plots.plot_heading, []
    monkeypatch.setattr(plots, "plot_heading", lambda each: drawn.append(each) or draw(each))
    write_report(Outputs("eval"), {"network": found}, tmp_path)
    assert drawn == [{"network": found}]


def test_plots_draw_the_curves_of_the_results():
    result = evaluate(random_pairs(2))
    line = plot_precision_recall({"network": result}).axes[0].lines[0]
    assert line.get_ydata() == pytest.approx(result["curves"]["precision50"])
    heights = [bar.get_height() for bar in plot_pose_by_yaw({"network": result}).axes[0].patches]
    means = [each["geodesic_mean"] for each in result["yaw_bins"] if each["evaluated"]]
    assert heights == pytest.approx(means)
    curve = plot_geodesic({"network": result}).axes[0].lines[0].get_ydata()
    middle = result["pose"]["geodesic_median"]
    assert curve[math.floor(middle)] <= 0.5 <= curve[math.ceil(middle)]


def test_a_summary_has_a_line_for_each_set_and_dashes_for_what_is_not_labelled():
    head = a_truth([[0, 0, 10, 10]], rotations=[np.eye(3)])
    box = a_truth([[0, 0, 10, 10]])
    found = a_pred(
        [[0, 0, 10, 10]], [0.9], [Rotation.from_euler("y", 40, degrees=True).as_matrix()]
    )
    text = format_summary({"posed": evaluate([(found, head)]), "boxes": evaluate([(found, box)])})
    titles, _, posed, boxes = (line.split() for line in text.splitlines())
    assert titles[:3] == ["images", "heads", "AP50"]
    assert posed == ["posed", "1", "1", "100.0%", "100.0%", "100.0%"] + [
        "1",
        "40.00°",
        "40.00°",
    ] * 2 + ["0.0%"]
    assert boxes[-6:] == ["-", "-", "0", "-", "-", "-"]
