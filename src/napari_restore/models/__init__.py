"""What can be run: networks, the catalogue of models, and their weights."""
