"""What can be run: networks, the catalog of models, and their weights."""
