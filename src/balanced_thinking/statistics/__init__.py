"""Statistics of accuracies: intervals, paired tests, bootstrap. Without torch and SciPy."""
