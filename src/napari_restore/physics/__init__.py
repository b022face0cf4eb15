"""How images are degraded: y = Hx + n, written out. Training and the checks both use it."""
