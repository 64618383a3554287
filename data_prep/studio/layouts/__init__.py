"""Rendered people in the raw layouts of real data sets, for `mtnet data convert`.

A layout has tasks, each independent of the others, and writes the files of a task into a folder.
`write_layout` runs them in several processes and puts the finished folder in its place.
"""
