"""The specifications that ship: each loads, and every run of it can be built."""

import pytest

from data_prep.sets import biwi
from mtnet_jax.ablation.checks import check_runs
from mtnet_jax.ablation.spec import Run, config_of, load_ablation, runs_of
from mtnet_jax.evaluation.comparison import group_of
from mtnet_jax.protocols import plan
from mtnet_jax.shipped import shipped
from mtnet_jax.system import build_system
from mtnet_jax.training.option_checks import check_values
from mtnet_jax.training.phases import read_phases
from tests.record_sets import a_record, write_record_set

BOX = [[5.0, 6, 30, 40]]
SHIPPED = ("representations", "equal_weight", "table2", "recipe", "protocol1")


def test_the_specs_that_ship_are_all_looked_at():
    assert {path.stem for path in shipped("configs/ablations").glob("*.py")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_specs_that_ship(name, tmp_path):
    spec = load_ablation(name)
    assert len(spec.seeds) >= 3
    for run in runs_of(spec):
        config = config_of(spec, run, tmp_path)
        check_values(config)
        build_system(config)
        read_phases(config)


def test_the_protocol_of_the_paper_is_compared_on_its_records(tmp_path):
    """Four representations after one detector, on what `mtnet protocol 1` tests on."""
    spec = load_ablation("protocol1")
    arms = {name: config_of(spec, Run(name, 0), tmp_path) for name in spec.arms}
    said = [config.model.representation for config in arms.values()]
    assert sorted(said) == ["euler", "quaternion", "sixd", "vectors"]
    trained, tested = (each.name for each in plan.PROTOCOLS[1].needed)
    for config in arms.values():
        assert {n for n, phase in config.phases.items() if phase.epochs} == {"phase3"}
        assert [entry.path for entry in config.data.values()] == [f"records/{trained}"]
    sets = {each.path: each.split for each in spec.test_sets.values()}
    for raw in (plan.PROTOCOLS[1].needed[1], plan.AFLW2000):
        assert sets[f"records/{raw.name}"] == raw.test.split
    assert tested in spec.test_sets


def test_people_of_biwi_are_drawn_whole():
    group = load_ablation("protocol1").test_sets["biwi"].group
    person = {n: group_of(f"{n:02d}/frame_00003", group) for n in biwi.SEQUENCES}
    same = {frozenset(n for n in person if person[n] == person[m]) for m in person}
    assert {pair for pair in same if len(pair) > 1} == set(map(frozenset, biwi.SAME_PERSON))
    assert len(same) == 20


def test_the_protocol_of_the_paper_can_be_tried_small(monkeypatch, tmp_path):
    """What docs/ablation.md says of a trial, on record sets of the names that are documented."""
    monkeypatch.chdir(tmp_path)
    write_record_set(tmp_path / "records/w300_lp", {"train": [a_record("a", boxes=BOX)]})
    write_record_set(tmp_path / "records/biwi", {"test": [a_record("24/frame_00003", boxes=BOX)]})
    write_record_set(tmp_path / "records/aflw2000", {"test": [a_record("image00002", boxes=BOX)]})
    small = ["model.width=0.25", "model.depth=0.125", "input.size=64"]
    small += [f"phases.phase{n}.epochs=0.01" for n in (1, 2, 3)]
    check_runs(load_ablation("protocol1"), tmp_path / "runs", [f"--config.{o}" for o in small])
