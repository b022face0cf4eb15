"""From an image and options to a restored image: decide, find what all blocks share, run blocks."""
