#!/bin/sh
# Prepares a working copy: .venv with rawmosaic in it, and OpenGL without a display. Run by `make`; safe to run again.
#
#   PYTHON   the interpreter to use (default: the newest of python3.14 … python3.11, python3)
#   VENV     where the virtual environment lies (default: .venv)
#
#   tools/setup.sh tests   also what tests of the window, of the web page, of the Qt widget and of microscopes need: a display
#                          that nobody sees, a browser, Qt, pymmcore-plus with demo devices. They are skipped without.
#
# System packages are installed only by root and only through apt-get; otherwise the exact line to type is printed.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
STAMP=$VENV/.ready

DISPLAY_TRIED=$VENV/.display-tried
BROWSER_TRIED=$VENV/.browser-tried
QT_TRIED=$VENV/.qt-tried
POSTGRESQL_TRIED=$VENV/.postgresql-tried
MICROMANAGER_TRIED=$VENV/.micromanager-tried

EGL_PACKAGES="libegl1 libgl1 libopengl0 libegl-mesa0 libgl1-mesa-dri"
DISPLAY_PACKAGES="xvfb xdotool"
BROWSER_PACKAGES="chromium npm"
POSTGRESQL_PACKAGES="postgresql"
QT_PACKAGES="libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libglib2.0-0"

MICROMANAGER_COMPILED="pymmcore,mm-test-adapters,tensorstore,shapely,pydantic-core"

say() { printf 'setup: %s\n' "$*" >&2; }

is_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

apt_install() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    # The package lists may be absent (fresh container) or old: refresh them only when the first try fails.
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2 ||
        { apt-get update -qq </dev/null >&2 && apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2; }
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    say "rawmosaic needs Python 3.11 or newer, and ${PYTHON:-python3} is not; name one: make PYTHON=/path/to/python3.12 …"
    exit 1
}

make_environment() {
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ]; then # never empty a folder that is something else
        say "$VENV is there already and is no virtual environment; choose another: make VENV=…"
        exit 1
    fi
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian and Ubuntu package them apart
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if is_root_with_apt; then
            apt_install "python$version-venv"
        else
            say "Python's venv module is missing; type: sudo apt-get install python$version-venv"
            exit 1
        fi
    fi
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

install_packages() {
    say "installing rawmosaic and its Python packages into $VENV"
    pip="$VENV/bin/python -m pip --disable-pip-version-check install --quiet"
    # The "fast" extra is compiled code that not every Python has ready-made; everything works without it.
    $pip -e '.[test,web,tiff,fast]' </dev/null ||
        { say "trying again without the optional accelerator" && $pip -e '.[test,web,tiff]' </dev/null; }
}

opengl_works() {
    "$VENV/bin/python" -c 'from rawmosaic.viewer.gl.context import HeadlessContext; HeadlessContext().close()' 2>/dev/null
}

check_opengl() {
    [ "$(uname -s)" = Linux ] || return 0
    opengl_works && return 0
    if is_root_with_apt; then
        # shellcheck disable=SC2086  # a list of packages
        apt_install $EGL_PACKAGES || true
        opengl_works && return 0
        say "there is still no OpenGL 3.3 through EGL:"
        "$VENV/bin/python" -c 'from rawmosaic.viewer.gl.context import HeadlessContext; HeadlessContext()' 2>&1 | tail -n 1 >&2
    else
        say "OpenGL 3.3 through EGL is missing; type: sudo apt-get install $EGL_PACKAGES"
    fi
    exit 1
}

# Never fails: without these the window tests are skipped, and say so.
prepare_display() {
    [ "$(uname -s)" = Linux ] || return 0
    command -v Xvfb >/dev/null 2>&1 && command -v xdotool >/dev/null 2>&1 && return 0
    if is_root_with_apt && [ ! -e "$DISPLAY_TRIED" ]; then # once: a machine without network would wait for it every time
        touch "$DISPLAY_TRIED"
        # shellcheck disable=SC2086  # a list of packages
        apt_install $DISPLAY_PACKAGES && return 0
    fi
    say "window tests will be skipped; to run them: sudo apt-get install $DISPLAY_PACKAGES"
}

qt_works() { "$VENV/bin/python" -c 'import PySide6.QtOpenGLWidgets' 2>/dev/null; }

# Never fails: without Qt the tests of its widget are skipped, and say so.
prepare_qt() {
    qt_works && return 0
    if [ ! -e "$QT_TRIED" ]; then
        touch "$QT_TRIED"
        say "installing Qt for the tests of its widget"
        "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet -e '.[qt]' </dev/null || true
        # shellcheck disable=SC2086  # a list of packages
        if [ "$(uname -s)" = Linux ] && is_root_with_apt; then apt_install $QT_PACKAGES || true; fi
        qt_works && return 0
    fi
    say "tests of the Qt widget will be skipped; to run them: $VENV/bin/pip install -e '.[qt]'"
}

micromanager_works() {
    "$VENV/bin/python" -c 'import mm_test_adapters; from pymmcore_plus import CMMCorePlus; CMMCorePlus().loadSystemConfiguration()' \
        >/dev/null 2>&1
}

# Never fails: without pymmcore-plus and its demo devices the tests with a microscope are skipped, and say so.
prepare_micromanager() {
    micromanager_works && return 0
    if [ ! -e "$MICROMANAGER_TRIED" ]; then
        touch "$MICROMANAGER_TRIED"
        say "installing pymmcore-plus and Micro-Manager's demo devices for the tests"
        # Where one of them is not ready-made for this Python, nobody waits for a compiler.
        "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet --only-binary "$MICROMANAGER_COMPILED" \
            -e '.[micromanager-demo]' </dev/null || true
        micromanager_works && return 0
    fi
    say "tests with Micro-Manager's demo devices will be skipped; to run them: $VENV/bin/pip install -e '.[micromanager-demo]'"
}

has_postgresql() {
    command -v initdb >/dev/null 2>&1 && return 0
    for program in /usr/lib/postgresql/*/bin/initdb; do # Debian keeps it off the path
        [ -x "$program" ] && return 0
    done
    return 1
}

# The tests run a server of their own, from a temporary folder. The package starts one too, now and whenever the machine starts:
# Debian asks policy-rc.d about the first, and a cluster's start.conf about the second. Both are only changed where we are the first.
install_postgresql() {
    policy=/usr/sbin/policy-rc.d
    was_there=$([ -e /etc/postgresql ] && echo yes || true)
    ours=
    if [ ! -e "$policy" ]; then
        ours=yes
        trap 'rm -f "$policy"; exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    # shellcheck disable=SC2086  # a list of packages
    apt_install $POSTGRESQL_PACKAGES && installed=0 || installed=1
    [ -z "$ours" ] || rm -f "$policy"
    trap - INT TERM
    if [ -z "$was_there" ]; then
        for conf in /etc/postgresql/*/main/start.conf; do
            [ ! -e "$conf" ] || sed -i 's/^auto$/manual/' "$conf"
        done
    fi
    return "$installed"
}

# Never fails: without it the tests of the library run on SQLite only, and say so.
prepare_postgresql() {
    has_postgresql && return 0
    if [ "$(uname -s)" = Linux ] && is_root_with_apt && [ ! -e "$POSTGRESQL_TRIED" ]; then
        touch "$POSTGRESQL_TRIED"
        install_postgresql || true
        has_postgresql && return 0
    fi
    say "tests of the library on PostgreSQL will be skipped; to run them: sudo apt-get install $POSTGRESQL_PACKAGES"
}

has_browser() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}

# The viewer of the web page comes from npm. Never fails: without it `rawmosaic serve --http` says what to type.
install_openseadragon() {
    [ -e "$VENV/node_modules/openseadragon" ] && return 0
    package=$("$VENV/bin/python" -m rawmosaic.net.web.openseadragon)
    if command -v npm >/dev/null 2>&1; then
        npm install --silent --no-audit --no-fund --prefix "$VENV" "$package" </dev/null >&2 && return 0
    fi
    say "the web page needs OpenSeadragon; with npm installed, type: npm install --prefix $VENV $package"
}

# Never fails: without these the tests in a browser are skipped, and say so.
prepare_browser() {
    has_browser && [ -e "$VENV/node_modules/openseadragon" ] && return 0
    if is_root_with_apt && [ ! -e "$BROWSER_TRIED" ]; then
        touch "$BROWSER_TRIED"
        wanted=
        has_browser || wanted=chromium
        command -v npm >/dev/null 2>&1 || wanted="$wanted npm"
        # shellcheck disable=SC2086  # a list of packages
        [ -z "$wanted" ] || apt_install $wanted || true
        install_openseadragon
        has_browser && return 0
    fi
    say "tests in a browser will be skipped; to run them: sudo apt-get install $BROWSER_PACKAGES"
}

if [ ! -x "$VENV/bin/python" ] || ! is_new_enough "$VENV/bin/python"; then
    make_environment
fi
if [ ! -e "$STAMP" ] || [ setup.cfg -nt "$STAMP" ] || [ pyproject.toml -nt "$STAMP" ]; then
    install_packages
    install_openseadragon
    check_opengl
    touch "$STAMP"
fi
if [ "${1:-}" = tests ]; then
    prepare_display
    prepare_browser
    prepare_qt
    prepare_micromanager
fi
