"""A studio: people rendered at exactly known head rotation, all the way round.

Data flows one way: assets -> person -> scene -> render -> truth -> records.

Axes. Head axes and camera axes are those of docs/conventions.md. The world has y down (gravity), x
and z level, the floor at y = 0; lengths are metres. A camera maps a world point X to
R_cam X + t_cam, so a head that stands in the world as R_head is seen as R_cam R_head.
"""
