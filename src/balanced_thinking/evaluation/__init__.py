"""Evaluation: generation, scoring and honest statistics."""
