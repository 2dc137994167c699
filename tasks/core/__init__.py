"""The story of Lintas in plain typed Python: no Prefect, no cloud SDK."""
