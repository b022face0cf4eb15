"""The docks, and the way between layers and arrays. Only here napari and Qt are imported."""
