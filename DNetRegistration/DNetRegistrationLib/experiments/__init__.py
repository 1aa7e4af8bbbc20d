"""Measurements on many pairs: the benchmark, the comparison with other tools, and the paper's experiments."""
