"""Which portraits of the Congress are taken, and where they go."""

from benchmarks.member_photos import chosen, split_of, splits


def row(image, source="bio_guide", congress="118", name="", born="1900"):
    fields = {"image": image, "source": source, "congress": congress}
    return {**fields, "name": name or image, "born": born, "died": ""}


def test_all_of_the_directory_and_the_old_ones_of_wikipedia_once_each():
    rows = [
        row("b/2.jpg", "bio_guide", "118"),
        row("b/2.jpg", "bio_guide", "117"),
        row("w/1.jpg", "wiki", "69"),
        row("w/3.jpg", "wiki", "70"),
        row("m/4.jpg", "manual", "12"),
    ]
    assert [each["image"] for each in chosen(rows)] == ["b/2.jpg", "w/1.jpg"]


def test_one_file_in_twenty_is_for_testing():
    named = [split_of(f"{number:06}.jpg") for number in range(4000)]
    assert 150 < named.count("test") < 250
    assert set(named) == {"train", "test"}


def test_nobody_is_trained_and_tested():
    """By name and birth, and by the content of the file."""
    names = [f"{number:06}.jpg" for number in range(200)]
    test = [name for name in names if split_of(name) == "test"]
    train = [name for name in names if split_of(name) == "train"]
    rows = [row(test[0], name="A"), row(test[1]), row(test[2], name="B", born="1800")]
    rows += [row(train[0], name="A"), row(train[1], name="B"), row(train[2])]
    contents = {each["image"]: each["image"] for each in rows} | {test[1]: train[2]}
    assert splits(rows, contents) == ["", "", "test", "train", "train", "train"]
