"""Many pairs of scans in one run: they are found, checked, aligned and told of in one table and on one page."""
