"""CMU Panoptic Studio: 3-D face landmarks and 31 HD cameras to heads with boxes and rotations.

One file for each concept, data flowing downwards:

* `layout`       where every file of the raw data lies, and which sequences, cameras, frames exist
* `calibration`  cameras: K, distortion, R, t; from points of the dome to pixels
* `head_fit`     the reference head; landmarks of a face, or joints of a body, to a head in the dome
* `labels`       json of faces and bodies to the heads of a frame
* `sphere`       the box: outline of a sphere round the head, projected
* `video`        single frames out of an HD video, by their number
* `splits`       which sequences and cameras are train and test; the public split
* `converter`    the options and the `Conversion`
"""
