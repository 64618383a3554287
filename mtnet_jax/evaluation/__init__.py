"""Evaluation: matching of predictions to truths, metrics that merge exactly, tables and plots."""
