"""The numbers of a report: tables, contrasts, costs, samples."""
