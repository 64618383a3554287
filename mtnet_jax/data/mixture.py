"""The record sets that a configuration mixes: opened, compared with each other, and described."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtnet_jax.columns import align
from mtnet_jax.data.example import CAMERA_FEATURE
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.errors import BadInput

Sources = dict[str, RecordSource]


def open_sources(config: ConfigDict) -> tuple[Sources, Sources]:
    """The training and the evaluation sources of a configuration, by name.

    Labels become indices into `config.class_names`, by name; images of the
    training records stay encoded, as `batches.training_batches` takes them.

    Raises:
      ValueError: nothing to train on, a record set with a label that the configuration does not
        name, or training sets whose boxes follow different rules without leave to mix them.
    """
    train_sources, eval_sources = {}, {}
    for name in sorted(config.data):
        entry = config.data[name]
        if entry.train_split and entry.weight > 0:
            train_sources[name] = RecordSource(
                entry.path,
                entry.train_split,
                decode=False,
                label_ids=_class_ids(config, name, RecordSet.open(entry.path)),
                frame=config.frame,
            )
        if entry.eval_split:
            eval_sources[name] = RecordSource(
                entry.path,
                entry.eval_split,
                label_ids=_class_ids(config, name, RecordSet.open(entry.path)),
                frame=config.frame,
            )
    if not train_sources:
        raise BadInput(
            "Nothing to train on: config.data has no record set with a train_split and a weight."
        )
    for name, source in train_sources.items():
        if not len(source):
            raise BadInput(
                f"config.data.{name}: {source!r} has nothing to train on: give it a weight of 0."
            )
    rules = box_rules(train_sources)
    if len(rules) > 1 and not config.mix_box_rules:
        raise BadInput(
            f"The boxes of the record sets follow different rules: {_rules_text(rules)}. One "
            "detector would learn both. Convert them by one rule, give all but one a weight of 0, "
            "or set config.mix_box_rules=True."
        )
    return train_sources, eval_sources


def stream_weights(config: ConfigDict, train_sources: Mapping[str, RecordSource]) -> list[float]:
    """Images an epoch takes of each training source: its weight times its number of records."""
    return [config.data[name].weight * len(source) for name, source in train_sources.items()]


def box_rules(sources: Mapping[str, RecordSource]) -> dict[str, list[str]]:
    """Box rule -> names of the sources that follow it."""
    rules: dict[str, list[str]] = {}
    for name, source in sources.items():
        rules.setdefault(source.record_set.box_rule, []).append(name)
    return rules


def describe(
    config: ConfigDict,
    train_sources: Mapping[str, RecordSource],
    eval_sources: Mapping[str, RecordSource],
) -> str:
    """A table of what is trained and evaluated on, and warnings where box rules differ.

    Numbers of heads come from the report of the conversion; "-" where there is none.
    """
    weights = stream_weights(config, train_sources)
    lines: list[tuple[str, ...]] = [
        ("", "set", "split", "images", "heads", "with pose", "weight", "share", "box rule"),
    ]
    for (name, source), weight in zip(train_sources.items(), weights, strict=True):
        share = f"{100 * weight / sum(weights):.1f} %"
        lines.append(_row("train", name, source, f"{config.data[name].weight:g}", share))
    lines += [_row("evaluate", name, source, "", "") for name, source in eval_sources.items()]
    text = [align(lines, left=(0, 1, 2, 8))]
    if config.pack.share and config.frame == "camera":
        seen = [name for name, source in train_sources.items() if _knows_cameras(source)]
        if seen:
            text.append(
                f"WARNING: {', '.join(seen)}: rotations are relative to a known camera "
                "(config.frame is 'camera'), and packed inputs (config.pack.share) show heads "
                "elsewhere than it saw them, so the same look has several rotations: set "
                "config.frame = 'ray', or config.pack.share = 0."
            )
    trained, evaluated = box_rules(train_sources), box_rules(eval_sources)
    if len(trained) > 1:
        text.append(f"WARNING: boxes of different rules are trained: {_rules_text(trained)}.")
    for rule in evaluated.keys() - trained.keys():
        text.append(
            f"WARNING: {', '.join(evaluated[rule])}: boxes by the rule {rule!r}, which no training "
            "set follows; detection numbers there say little."
        )
    return "\n".join(text)


def _knows_cameras(source: RecordSource) -> bool:
    """Whether records have intrinsics, by the first and the last: sets have them throughout."""
    return any(source[i][CAMERA_FEATURE].any() for i in (0, -1))


def _row(use: str, name: str, source: RecordSource, weight: str, share: str) -> tuple[str, ...]:
    counts = source.record_set.converted_counts(source.split)
    heads, with_pose = (
        f"{counts[key]:,}" if key in counts else "-" for key in ("heads", "heads with a pose")
    )
    rule = source.record_set.box_rule
    return (use, name, source.split, f"{len(source):,}", heads, with_pose, weight, share, rule)


def class_ids(record_set: RecordSet, class_names: Sequence[str]) -> list[int]:
    """The class of each label of a record set that is evaluated: by name.

    For a network of one class every label is that class.

    Raises:
      BadInput: a label that is none of several classes.
    """
    if len(class_names) == 1:
        return [0] * len(record_set.label_names)
    unknown = sorted(set(record_set.label_names) - set(class_names))
    if unknown:
        raise BadInput(
            f"{record_set.path} has the labels {', '.join(unknown)}, the network only the classes "
            f"{', '.join(class_names)}: convert the set again with --label-map."
        )
    return [list(class_names).index(label) for label in record_set.label_names]


def _class_ids(config: ConfigDict, name: str, record_set: RecordSet) -> list[int]:
    """The index into `config.class_names` of each label of a record set."""
    class_names, renamed = tuple(config.class_names), config.data[name].get("labels", {})
    unknown = sorted(set(renamed) - set(record_set.label_names))
    if unknown:
        raise BadInput(
            f"config.data.{name}.labels renames {unknown}, but {record_set.path} has the labels "
            f"{record_set.label_names}."
        )
    ids = []
    for label in record_set.label_names:
        class_name = renamed.get(label, label)
        if class_name not in class_names:
            raise BadInput(
                f"config.data.{name} ({record_set.path}) has the label {label!r}, "
                f"config.class_names only {class_names}: name {class_name!r} there, or say which "
                f"class it is with record_set(..., labels={{{label!r}: {class_names[0]!r}}})."
            )
        ids.append(class_names.index(class_name))
    return ids


def _rules_text(rules: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{rule!r} in {', '.join(names)}" for rule, names in sorted(rules.items()))
