"""A contest of refinements: how close each tool ends from one start, beside the least error that noise allows."""
