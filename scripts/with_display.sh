#!/bin/sh
# Run a command with a display: on Linux a virtual one of its own, with OpenGL in software.
set -eu
if [ "$(uname)" != Linux ]; then exec "$@"; fi
if command -v xvfb-run >/dev/null 2>&1; then
    unset WAYLAND_DISPLAY
    export QT_QPA_PLATFORM=xcb LIBGL_ALWAYS_SOFTWARE=1
    exec xvfb-run -a -s "-screen 0 1600x1200x24" "$@"
fi
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then exec "$@"; fi
echo "There is no display and no xvfb-run. On Debian and Ubuntu: apt-get install xvfb xauth" >&2
exit 1
