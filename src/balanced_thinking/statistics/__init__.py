"""Honest statistics of accuracies: intervals, paired tests, bootstrap. No torch, no SciPy."""
