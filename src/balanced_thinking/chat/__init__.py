"""Models to try by hand: `balanced chat` in the terminal and in a browser, asked and scored as in an evaluation."""
