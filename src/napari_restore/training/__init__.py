"""How the bundled weights are made: data, degradations, loop and recipes, and nothing else."""
