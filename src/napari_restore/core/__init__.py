"""Arrays in, arrays out: axes, intensities, tiles, devices and the engine. Knows no model."""
