"""What an image is: axes, intensities, lazy arrays, levels."""
