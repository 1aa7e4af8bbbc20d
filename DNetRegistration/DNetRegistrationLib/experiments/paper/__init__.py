"""The experiments of the paper (Sec. 2.4 to 3): `run.evaluate`, from scans to a report."""
