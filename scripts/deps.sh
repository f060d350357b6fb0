#!/bin/bash
# shellcheck disable=SC2034
# What Sallyport needs from apt, in one place. run.sh and test.sh source it, which changes nothing;
# run by itself, `scripts/deps.sh [--no-install] build|test|bench` installs what is missing.

# To build and run. openssh-server is the demo target, util-linux has setsid, setpriv and unshare,
# scdoc writes the man pages.
DEPS_BUILD=(gcc cmake ninja-build pkg-config libssh-dev libevent-dev libssl-dev libsqlite3-dev
    libjansson-dev libsmartcols-dev libcrypt-dev libzstd-dev libseccomp-dev libncurses-dev
    libfreetype-dev fonts-dejavu-core libvterm-dev libxkbcommon-dev xkb-data libx11-data
    liboath-dev libqrencode-dev libpam0g-dev
    libavcodec-dev libavformat-dev libswscale-dev libavutil-dev
    openssh-client openssh-server passwd util-linux scdoc)

# NTLM for RDP comes from FreeRDP's WinPR, pictures of recordings from its client library; the
# packages have the version in their names.
if grep -qs '^VERSION_ID="12"' /etc/os-release; then
    DEPS_BUILD+=(libwinpr2-dev freerdp2-dev)
else
    DEPS_BUILD+=(libwinpr3-dev freerdp3-dev)
fi

# To test: the second compiler with its fuzzer, checkers, clients and terminals.
DEPS_TEST=(clang libclang-rt-dev clang-format shellcheck libcmocka-dev python3-pytest
    python3-paramiko python3-pexpect python3-pyte dropbear-bin putty-tools tmux asciinema strace zstd
    ansible-core curl iproute2 mosh nftables python3-asyncssh sshfs xauth
    vim less rsync git procps sudo sqlite3 ffmpeg)

# Desktops to test and to measure with: servers, clients, and what looks at their screens.
DEPS_DESKTOP=(xvfb xrdp xorgxrdp tigervnc-standalone-server rdesktop xdotool x11-apps x11-utils
    x11-xserver-utils xclip xterm)
if grep -qs '^VERSION_ID="12"' /etc/os-release; then
    DEPS_DESKTOP+=(winpr-utils freerdp2-x11 freerdp2-shadow-x11)
else
    DEPS_DESKTOP+=(winpr3-utils freerdp3-x11 freerdp3-shadow-x11)
fi
DEPS_TEST+=("${DEPS_DESKTOP[@]}")

# To measure, besides what building takes.
DEPS_BENCH=(haproxy python3-pexpect python3-pytest procps iproute2 openssl "${DEPS_DESKTOP[@]}")

# Debian 12's libssh had holes that a proxy is exposed to; this update closes them.
DEPS_LIBSSH=libssh-4
DEPS_LIBSSH_MIN=0.10.6-0+deb12u3

deps_is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Prints the packages of the arguments that are missing or too old, one a line.
deps_missing() {
    local package version
    for package in "$@"; do
        deps_is_installed "$package" || echo "$package"
    done
    version=$(dpkg-query -W -f '${Version}' "$DEPS_LIBSSH" 2>/dev/null || true)
    if [ -n "$version" ] && dpkg --compare-versions "$version" lt "$DEPS_LIBSSH_MIN"; then
        echo "$DEPS_LIBSSH"
    fi
}

# True when apt knows no libssh that is new enough: no package lists yet (a fresh container), or old
# ones.
deps_lists_are_old() {
    local version
    version=$(LC_ALL=C apt-cache policy "$DEPS_LIBSSH" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [ -z "$version" ] || [ "$version" = "(none)" ] ||
        dpkg --compare-versions "$version" lt "$DEPS_LIBSSH_MIN"
}

# deps_install MODE PACKAGE...: makes sure that they are there. MODE "no" only checks. Without the
# right to install it prints the one line that does it, and leaves with 1.
deps_install() {
    local mode=$1 missing
    shift
    if ! command -v dpkg-query >/dev/null; then
        echo "deps: no dpkg here; expecting that these are installed: $*" >&2
        return 0
    fi
    mapfile -t missing < <(deps_missing "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    local line="sudo apt-get install -y --no-install-recommends ${missing[*]}"
    if deps_lists_are_old; then line="sudo apt-get update && $line"; fi
    if [ "$mode" = no ]; then
        echo "These packages are missing. As root:" >&2
    elif [ "$(id -u)" -eq 0 ]; then
        deps_apt "${missing[@]}" && deps_check "$@" && return 0
        echo "The installation failed. As root:" >&2
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        deps_apt "${missing[@]}" && deps_check "$@" && return 0
        echo "The installation failed. Try it by hand:" >&2
    else
        echo "These packages are missing, and $(id -un) may not install them. Run this and start again:" >&2
    fi
    echo "  $line" >&2
    exit 1
}

# What was installed must be enough: an archive without security updates has too old a libssh.
deps_check() {
    local missing
    mapfile -t missing < <(deps_missing "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "${missing[*]}" = "$DEPS_LIBSSH" ] &&
        echo "$DEPS_LIBSSH must be $DEPS_LIBSSH_MIN or newer: apt needs Debian's security updates." >&2
    return 1
}

# Progress goes to stderr: stdout belongs to what the caller prints.
deps_apt() {
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
    echo "Installing: $*" >&2
    if deps_lists_are_old; then deps_apt_get update || return 1; fi
    if ! deps_apt_get install -y --no-install-recommends "$@"; then
        # The lists may be older than the archive.
        deps_apt_get update && deps_apt_get install -y --no-install-recommends "$@" || return 1
    fi
    # Debian starts what it installs. Nobody asked for an SSH server of the whole machine.
    if [[ " $* " == *" openssh-server "* ]] && [ -d /run/systemd/system ]; then
        "${sudo[@]}" systemctl disable --now ssh.service ssh.socket >/dev/null 2>&1 || true
        echo "openssh-server is there for a private sshd on loopback; the service ssh is off." >&2
    fi
    if [[ " $* " == *" xrdp "* ]] && [ -d /run/systemd/system ]; then
        "${sudo[@]}" systemctl disable --now xrdp.service xrdp-sesman.service >/dev/null 2>&1 || true
        echo "xrdp is there for tests on loopback; its services are off." >&2
    fi
}

deps_apt_get() {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >&2
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    mode=yes
    if [ "${1-}" = --no-install ]; then
        mode=no
        shift
    fi
    case ${1-} in
    build) deps_install $mode "${DEPS_BUILD[@]}" ;;
    test) deps_install $mode "${DEPS_BUILD[@]}" "${DEPS_TEST[@]}" ;;
    bench) deps_install $mode "${DEPS_BUILD[@]}" "${DEPS_BENCH[@]}" ;;
    *) echo "usage: scripts/deps.sh [--no-install] build|test|bench" >&2; exit 2 ;;
    esac
fi
