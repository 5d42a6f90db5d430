"""Configuration: YAML checked against dataclasses, and suggestions for misspelt names."""
