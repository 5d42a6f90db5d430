"""Configuration: YAML checked against dataclasses, errors, and suggestions for misspelled names."""
