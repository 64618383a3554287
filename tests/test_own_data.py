"""Own data in three formats says the same."""

import json
from pathlib import Path

import numpy as np

from data_prep.own import coco, csv_heads, yolo
from tests.own_files import HEIGHT, WIDTH, convert, write_image


def test_three_formats_give_equal_records(tmp_path):
    """The same images and heads, written by hand in each format."""
    heads = {  # name -> rows of class, box
        "one": [("head", (10, 5, 30, 30)), ("helmet", (40.5, 5, 60.5, 30))],
        "two": [("helmet", (0, 0, 8, 10))],
        "empty": [],
    }
    raw = tmp_path / "raw"
    yolo_lines, rows = {}, ["image,x1,y1,x2,y2,label"]
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "head"}, {"id": 2, "name": "helmet"}],
    }
    for number, (name, boxes) in enumerate(heads.items()):
        write_image(raw / "train" / "images" / f"{name}.jpg", number)
        content["images"].append({"id": number, "file_name": f"{name}.jpg"})
        yolo_lines[name] = ""
        for label, (x1, y1, x2, y2) in boxes:
            w, h = x2 - x1, y2 - y1
            content["annotations"].append(
                {"image_id": number, "category_id": 1 + (label == "helmet"), "bbox": [x1, y1, w, h]}
            )
            rows.append(f"train/images/{name}.jpg,{x1},{y1},{x2},{y2},{label}")
            fractions = ((x1 + w / 2) / WIDTH, (y1 + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
            yolo_lines[name] += f"{int(label == 'helmet')} {' '.join(map(repr, fractions))}\n"
        if not boxes:
            rows.append(f"train/images/{name}.jpg,,,,,")
    (raw / "train" / "labels").mkdir()
    for name, lines in yolo_lines.items():
        (raw / "train" / "labels" / f"{name}.txt").write_text(lines)
    (raw / "data.yaml").write_text("names: [head, helmet]")
    (raw / "coco.json").write_text(json.dumps(content))
    (raw / "heads.csv").write_text("\n".join(rows))

    files = coco.Split(raw / "coco.json", raw / "train" / "images")
    sets = {
        "yolo": yolo.conversion(raw, name="own"),
        "coco": coco.conversion({"train": files}, name="own"),
        "csv": csv_heads.conversion(raw, raw / "heads.csv", name="own"),
    }
    found = {}
    for kind, conversion in sets.items():
        _, records = convert(conversion, tmp_path / kind)
        found[kind] = {Path(image_id).stem: record for image_id, record in records.items()}
    for name, boxes in heads.items():
        expected = np.array([box for _, box in boxes], np.float32).reshape(-1, 4)
        for kind in sets:
            record = found[kind][name]
            np.testing.assert_allclose(record["boxes"], expected, atol=1e-5)
            fields = ("image", "labels", "has_pose", "ignore", "rotations", "source", "split")
            for field in (*fields, "headings", "has_heading", "intrinsics"):
                np.testing.assert_array_equal(record[field], found["yolo"][name][field])
