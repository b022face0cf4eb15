"""Run any predictor over an image of any size."""
