"""The report as an HTML page, Markdown and CSV, and its wording."""
