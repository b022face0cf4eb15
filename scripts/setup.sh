#!/bin/sh
# Make .venv with the package, its tests' tools and the pinned versions of constraints.txt.
#
# Needs Python 3.11 or newer. On Debian and Ubuntu the libraries that Qt and OpenGL want, and Xvfb,
# are installed where they are missing and apt-get may be used without a password; otherwise this
# says what is missing and goes on. PYTHON names the interpreter; it is looked for without.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# ---------------------------------------------------------------- Python

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if new_enough "$name"; then
            printf '%s' "$name"
            return
        fi
    done
    say "No Python of version 3.11 or newer (tried: ${PYTHON:-python3, python3.11 to python3.14})."
    say "Install one (Debian 12 and later, Ubuntu 24.04 and later: apt-get install python3"
    say "python3-venv; macOS: python.org), or name it: make PYTHON=/path/to/python3"
    exit 1
}

# ---------------------------------------------------------------- Debian packages

packages="libegl1 libgl1 libglx-mesa0 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3
libfontconfig1 libfreetype6 libxkbcommon0 libxkbcommon-x11-0 libx11-xcb1 libxcb-cursor0
libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0
libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xinerama0 libxcb-xkb1 xvfb xauth"

installed() {
    # Newer releases add t64 to the names of libraries whose time type grew.
    for name in "$1" "$1t64"; do
        case "$(dpkg-query -W -f='${Status}' "$name" 2>/dev/null)" in
            *" installed") return 0 ;;
        esac
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_debian() {
    missing=""
    for package in $packages; do
        installed "$package" || missing="$missing $package"
    done
    # Debian's Python makes virtual environments only with python3-venv.
    "$python" -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing $("$python" -c \
        'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    if { [ "$(id -u)" = 0 ] || sudo -n true >/dev/null 2>&1; } &&
        as_root apt-get update -qq >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing >&2; then
        return 0
    fi
    say "Not installed, and apt-get cannot be used here without a password:$missing"
    say "If Qt or the tests fail: sudo apt-get install$missing"
}

# ---------------------------------------------------------------- the environment

python=$(find_python)
if command -v apt-get >/dev/null 2>&1; then install_debian; fi
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv || {
        rm -rf .venv
        say "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
        exit 1
    }
fi
say "Installing into .venv with $("$python" --version); the first time takes minutes …"
# Dependency groups need pip 25.1.
.venv/bin/python -m pip install --quiet --constraint constraints.txt "pip>=25.1"
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
