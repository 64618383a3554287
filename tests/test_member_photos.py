"""Which portraits of the Congress are taken, and where they go."""

from benchmarks.member_photos import chosen, split_of


def row(image, source, congress):
    return {"image": image, "source": source, "congress": congress}


def test_all_of_the_directory_and_the_old_ones_of_wikipedia_once_each():
    rows = [
        row("b/2.jpg", "bio_guide", "118"),
        row("b/2.jpg", "bio_guide", "117"),
        row("w/1.jpg", "wiki", "69"),
        row("w/3.jpg", "wiki", "70"),
        row("m/4.jpg", "manual", "12"),
    ]
    assert chosen(rows) == ["b/2.jpg", "w/1.jpg"]


def test_one_file_in_twenty_is_for_testing():
    splits = [split_of(f"{number:06}.jpg") for number in range(4000)]
    assert 150 < splits.count("test") < 250
    assert set(splits) == {"train", "test"}
