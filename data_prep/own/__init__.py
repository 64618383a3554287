"""Data of your own, as labelling tools write it: YOLO txt, COCO json, tables."""
