"""What stays exact over ranks: `make test-ranks` measures it. docs/scale.md has the tables."""
