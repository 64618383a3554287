"""Hostile files: what is written, and what reads it."""
