"""``python -m napari_restore.cli``."""

import sys

from napari_restore.cli import main

if __name__ == "__main__":
    sys.exit(main())
