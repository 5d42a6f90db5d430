"""The files of a run: their names, their records, who writes and who reads them. No torch."""
