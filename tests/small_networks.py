"""Networks that are quick and look at few pixels, for tests."""

from __future__ import annotations

#: A network that looks at most 24 pixels far, so that its halo holds all it sees.
_BLOCKS = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
SMALL = {"width": 8, **_BLOCKS}
SMALL_RESUNET = {"widths": (8, 12), "unshuffle": 2, **_BLOCKS}
SMALL_INVERTER = {"keep_light": False, "steps": (30, 250), **SMALL_RESUNET}
SMALL_AFFINE = {"widths": (8, 16), "view": 32, **_BLOCKS}
