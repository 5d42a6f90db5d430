"""Samples of different lengths in rows without padding; no sample attends to another."""
