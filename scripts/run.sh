#!/bin/bash
# Try Sallyport: installs what is missing, builds, makes a state folder with keys, a configuration
# and a store at the first start, an admin and a demo target, runs the proxy in the foreground and
# prints what to type. A second run starts what is there. Ctrl-C ends it.
# shellcheck disable=SC2317 # functions that are called by traps and by wait_for
set -euo pipefail
shopt -s inherit_errexit
umask 022
export PATH="$PATH:/usr/sbin:/sbin"
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$repo/scripts/deps.sh"

usage() {
    cat <<'END'
usage: scripts/run.sh [--no-install] [--dir DIR] [--port-base N]
  --no-install   do not install packages; name what is missing and stop
  --dir DIR      keep keys, configuration, store and recordings in DIR
                 (default: ./var; as root from a folder that others cannot enter:
                 /var/lib/sallyport-dev)
  --port-base N  use ports from N on, the first free ones (default 2222)
SALLYPORT_BUILD names a build tree whose programs are taken instead of building.
END
}

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 1
}

wrong_usage() {
    printf 'run.sh: %s\n' "$*" >&2
    usage >&2
    exit 2
}

# ---- the command line ----

install=yes
dir=
port_base=2222
while [ $# -gt 0 ]; do
    case $1 in
    --no-install) install=no ;;
    --dir | --port-base)
        [ $# -ge 2 ] || wrong_usage "$1 needs a value"
        if [ "$1" = --dir ]; then dir=$2; else port_base=$2; fi
        shift
        ;;
    --dir=*) dir=${1#*=} ;;
    --port-base=*) port_base=${1#*=} ;;
    -h | --help) usage; exit 0 ;;
    *) wrong_usage "unknown option $1" ;;
    esac
    shift
done
if ! [[ $port_base =~ ^[0-9]{1,5}$ ]] || [ "$port_base" -lt 1 ] || [ "$port_base" -gt 65000 ]; then
    fail "--port-base takes a number from 1 to 65000"
fi
is_root=no
[ "$(id -u)" -eq 0 ] && is_root=yes

# ---- where things are kept ----

# True when every user may enter this folder, or the nearest one above it that exists.
is_open_to_all() {
    local path=$1
    while [ ! -d "$path" ]; do path=$(dirname "$path"); done
    while :; do
        [ $((0$(stat -Lc %a "$path") & 1)) -eq 1 ] || return 1
        [ "$path" = / ] && return 0
        path=$(dirname "$path")
    done
}

choose_dir() {
    local is_given=yes
    [ -n "$dir" ] || { is_given=no; dir=$repo/var; }
    case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
    dir=$(realpath -m "$dir")
    # Gates and relays are processes of system users; they must get at their programs and sockets.
    if [ $is_root = yes ] && ! is_open_to_all "$dir"; then
        [ $is_given = no ] ||
            fail "$dir cannot be entered by the system user sallyport; choose another --dir," \
                "for example /var/lib/sallyport-dev"
        say "The users sallyport and sallyport-relay cannot enter $repo, so everything is kept in"
        say "/var/lib/sallyport-dev instead of ./var."
        dir=/var/lib/sallyport-dev
    fi
    if [ -e "$dir" ] && [ "$(stat -c %u "$dir")" != "$(id -u)" ]; then
        fail "$dir belongs to user $(stat -c %U "$dir"); run this as that user, or use --dir"
    fi
    mkdir -p "$dir" 2>/dev/null || fail "cannot make $dir; use --dir DIR with a folder of yours"
    bin=$dir/bin
    socket_dir=$dir/run
    # A socket's path has at most 107 bytes, and names are added to this one.
    if [ ${#socket_dir} -gt 70 ]; then
        socket_dir=/tmp/sallyport-$(id -u)-$(printf %s "$dir" | cksum | cut -d' ' -f1)
    fi
    socket=$socket_dir/control.sock
}

# ---- build ----

build() {
    local tree=$repo/build/run
    [ -w "$repo" ] && { [ ! -e "$repo/build" ] || [ -w "$repo/build" ]; } || tree=$dir/build
    [ ! -e "$tree" ] || [ -w "$tree" ] || tree=$dir/build
    if [ -n "${SALLYPORT_BUILD-}" ]; then
        tree=$SALLYPORT_BUILD
    else
        make_programs "$tree"
    fi
    # Copies, so that system users can run them wherever the clone is, and so that a rebuild does
    # not change what runs.
    mkdir -p "$bin"
    find "$tree" -maxdepth 1 -type f -name "sally*" -perm -u+x \
        ! -name "*-options" ! -name "*-keymaps" -exec install -m 755 -t "$bin" {} +
}

make_programs() {
    local tree=$1 log=$1/run.log
    mkdir -p "$tree"
    say "Building in $tree ..."
    if ! { cmake -S "$repo" -B "$tree" -G Ninja -DSALLYPORT_TESTS=OFF -DSALLYPORT_WERROR=OFF &&
        cmake --build "$tree"; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "the build failed; all of it is in $log"
    fi
}

ctl() {
    "$bin/sallyctl" --socket "$socket" "$@"
}

# The same, silent unless it fails.
quiet_ctl() {
    local output
    output=$(ctl "$@" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
}

is_up() {
    [ -S "$socket" ] && ctl status >/dev/null 2>&1
}

# ---- users of the system (root only) ----

make_system_users() {
    local name
    for name in sallyport sallyport-relay; do
        getent passwd "$name" >/dev/null || useradd --system --user-group --no-create-home \
            --home-dir / --shell /usr/sbin/nologin "$name" || fail "cannot make the user $name"
    done
    getent group sallyport-admin >/dev/null || groupadd --system sallyport-admin ||
        fail "cannot make the group sallyport-admin"
}

# ---- ports ----

# Listeners, and connections that the system gave this port; those are in the way of a listener, too.
# State 06 is TIME_WAIT, which is not.
is_port_free() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '
            substr($2, length($2) - 4) == port && $4 != "06" { taken = 1 }
            END { exit taken }'
}

does_listen() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# first_free_port FROM: the first port from FROM on that nobody listens on.
first_free_port() {
    local port
    for ((port = $1; port < $1 + 200 && port < 65536; port++)); do
        if is_port_free "$port"; then
            echo "$port"
            return 0
        fi
    done
    fail "no free port from $1 to $((port - 1)); use --port-base"
}

# kept_port NAME FROM: the port of the last run if it is free, otherwise the first free one.
kept_port() {
    local port
    port=$(cat "$dir/$1.port" 2>/dev/null || true)
    if ! [[ $port =~ ^[0-9]+$ ]] || ! is_port_free "$port" || [ "$is_base_given" = yes ]; then
        port=$(first_free_port "$2")
    fi
    echo "$port" >"$dir/$1.port"
    echo "$port"
}

# ---- configuration ----

has_user_namespaces() {
    unshare --user --map-root-user --root=/ true 2>/dev/null
}

write_config() {
    if [ ! -e "$dir/proxy.conf" ]; then
        cat >"$dir/proxy.conf" <<END
# Made by scripts/run.sh; change it as you like. All options: proxy.conf.example.
include = run.conf

[proxy]
data_dir = data
run_dir = $socket_dir
store_key = keys/store.key
shutdown_grace = 5s
END
    fi
    {
        echo "# Written anew by scripts/run.sh at each start: what depends on this machine now."
        echo "[ssh]"
        echo "listen = 127.0.0.1:$ssh_port"
        echo "[rdp]"
        echo "listen = 127.0.0.1:$rdp_port"
        if [ $is_root = no ] && ! has_user_namespaces; then
            echo "[proxy]"
            echo "sandbox = reduced"
        fi
    } >"$dir/run.conf"
    if grep -q reduced "$dir/run.conf"; then
        say "This kernel does not let $(id -un) make user namespaces: relays run without a root" \
            "folder of their own (sandbox = reduced)."
    fi
    "$bin/sallyportd" -t -c "$dir/proxy.conf" >/dev/null || fail "see above; correct $dir/proxy.conf"
}

# ---- the demo target: a private sshd on loopback ----

make_demo() {
    local account pam=no
    account=$(id -un)
    mkdir -p "$dir/demo"
    [ -e "$dir/demo/host_key" ] || ssh-keygen -q -t ed25519 -N '' -C demo -f "$dir/demo/host_key"
    [ -e "$dir/demo/login_key" ] || ssh-keygen -q -t ed25519 -N '' -C demo -f "$dir/demo/login_key"
    cp "$dir/demo/login_key.pub" "$dir/demo/authorized_keys"
    # Without PAM, sshd turns away an account whose password is locked, key or not.
    if [ $is_root = yes ]; then
        mkdir -p /run/sshd
        case $(getent shadow "$account" | cut -d: -f2) in '!'*) pam=yes ;; esac
    fi
    cat >"$dir/demo/sshd_config" <<END
Port $demo_port
ListenAddress 127.0.0.1
HostKey "$dir/demo/host_key"
AuthorizedKeysFile "$dir/demo/authorized_keys"
AllowUsers $account
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM $pam
PidFile none
PrintMotd no
MaxSessions 100
MaxStartups 200
Subsystem sftp internal-sftp
END
}

# An sshd that is not root can give a terminal only when its group is right already: tty on most
# systems, by a mount option. Where that is missing (some containers), sshd is shown a list of groups
# without tty, and is content with the user's own.
needs_group_trick() {
    local tty
    [ $is_root = no ] || return 1
    tty=$(getent group tty | cut -d: -f3)
    [ -n "$tty" ] && ! grep -qE "^[^ ]+ /dev/pts devpts [^ ]*\\bgid=$tty\\b" /proc/mounts
}

demo_pid=
start_demo() {
    local -a around=()
    if needs_group_trick && has_user_namespaces; then
        grep -v '^tty:' /etc/group >"$dir/demo/group"
        # shellcheck disable=SC2016 # for the inner shell
        around=(unshare --user --map-current-user --keep-caps --mount sh -c
            'mount --bind "$1" /etc/group; shift; exec setpriv --ambient-caps=-all --inh-caps=-all "$@"'
            sh "$dir/demo/group")
    elif needs_group_trick; then
        say "On this system an sshd of $(id -un) cannot make terminals: the demo target only runs" \
            "commands (ssh ... COMMAND)."
    fi
    # A process group of its own: Ctrl-C is for the proxy, which tells the users. And SIGINT as it
    # was: a shell's children in the background ignore it, and so would every program in the demo.
    env --default-signal=INT,QUIT setsid "${around[@]}" "$(command -v sshd)" -D \
        -f "$dir/demo/sshd_config" -E "$dir/demo/log" </dev/null >/dev/null 2>&1 &
    demo_pid=$!
    wait_for "the demo target's sshd" "$demo_pid" demo_listens
}

demo_listens() {
    does_listen "$demo_port"
}

# ---- the proxy ----

broker_pid=
start_broker() {
    env --default-signal=INT,QUIT setsid "$bin/sallyportd" -c "$dir/proxy.conf" </dev/null &
    broker_pid=$!
    wait_for "the proxy" "$broker_pid" is_up
}

# wait_for WHAT PID CONDITION: up to 30 s, or until the process is gone.
wait_for() {
    local end=$((SECONDS + 30))
    until "$3"; do
        kill -0 "$2" 2>/dev/null || fail "$1 did not start; see above"
        [ $SECONDS -lt $end ] || fail "$1 did not answer within 30 s"
        sleep 0.1
    done
}

stop_all() {
    trap - EXIT
    trap '[ -z "$broker_pid" ] || kill -INT "$broker_pid" 2>/dev/null || true' INT TERM HUP
    if [ -n "$broker_pid" ] && kill -INT "$broker_pid" 2>/dev/null; then
        while kill -0 "$broker_pid" 2>/dev/null; do wait "$broker_pid" || true; done
    fi
    [ -z "$demo_pid" ] || kill "$demo_pid" 2>/dev/null || true
}

# ---- the first admin and the demo target, through the running proxy ----

admin_name() {
    local name
    name=$(id -un)
    [ $is_root = no ] || name="admin"
    [[ $name =~ ^[A-Za-z0-9._-]{1,64}$ ]] || name="admin"
    echo "$name"
}

random_password() {
    local text
    text=$(head -c 400 /dev/urandom | LC_ALL=C tr -dc 'a-km-np-z2-9')
    echo "${text:0:5}-${text:5:5}-${text:10:5}-${text:15:5}"
}

password=
keys=0
make_admin() {
    local key
    if ctl user show "$admin" >/dev/null 2>&1; then
        return 0
    fi
    password=$(random_password)
    printf '%s\n' "$password" | quiet_ctl user add "$admin" --role admin --password-stdin ||
        fail "cannot add the user $admin"
    for key in ~/.ssh/*.pub; do
        [ -e "$key" ] || continue
        case $key in *-cert.pub) continue ;; esac
        if ctl user key add "$admin" "$key" >/dev/null 2>&1; then keys=$((keys + 1)); fi
    done
}

# A demo target is made when there is none at all; one that is there follows its port.
has_demo() {
    ctl target show demo >/dev/null 2>&1
}

make_demo_target() {
    local type blob rest
    if has_demo; then
        quiet_ctl target set demo --address "127.0.0.1:$demo_port" ||
            fail "cannot change the target demo"
    else
        read -r type blob rest <"$dir/demo/host_key.pub"
        quiet_ctl target add demo --type ssh --address "127.0.0.1:$demo_port" --account "$(id -un)" \
            --auth key --key-file "$dir/demo/login_key" --host-key "$type $blob" ||
            fail "cannot add the target demo ($rest)"
        quiet_ctl grant add "$admin" demo || fail "cannot grant demo to $admin"
    fi
}

needs_demo() {
    has_demo || [ "$(ctl -o json target ls 2>/dev/null | tr -d ' \n\t')" = '[]' ]
}

# ---- what to type ----

fingerprint() {
    local key=$dir/data/ssh_host_ed25519_key
    [ -r "$key" ] || return 0
    ssh-keygen -y -f "$key" 2>/dev/null | ssh-keygen -lf - 2>/dev/null | cut -d' ' -f2 || true
}

# An earlier proxy at this address had another key: ssh would refuse, and the reason is not obvious.
warn_old_host_key() {
    local blob known
    known=$(ssh-keygen -F "[127.0.0.1]:$ssh_port" 2>/dev/null | grep ssh-ed25519 || true)
    blob=$(ssh-keygen -y -f "$dir/data/ssh_host_ed25519_key" 2>/dev/null | cut -d' ' -f2 || true)
    if [ -n "$known" ] && [ -n "$blob" ] && [[ $known != *"$blob"* ]]; then
        say "  Your known_hosts has another key for this address, of an earlier proxy. Take it out:"
        say "    ssh-keygen -R '[127.0.0.1]:$ssh_port'"
    fi
}

# The first RDP target, or how to make one: there is no demo desktop.
print_desktops() {
    local name
    name=$(ctl target ls 2>/dev/null | awk '$2 == "rdp" { print $1; exit }')
    if [ -n "$name" ]; then
        say "  xfreerdp /v:127.0.0.1:$rdp_port /u:$admin+$name   # a desktop; or rdesktop, mstsc, Remmina"
    else
        say "  Desktops: make an RDP server a target, with the account that it is to be logged in to as:"
        say "    $1 target add win01 --type rdp --address HOST:3389 \\"
        say "        --account ACCOUNT --auth password --accept-new"
        say "    $1 grant add $admin win01"
        say "    xfreerdp /v:127.0.0.1:$rdp_port /u:$admin+win01"
    fi
    say ""
}

print_commands() {
    local sallyctl
    sallyctl="$(printf '%q --socket %q' "$bin/sallyctl" "$socket")"
    say ""
    say "Sallyport is running. In another terminal:"
    say ""
    if has_demo; then
        say "  ssh -p $ssh_port $admin+demo@127.0.0.1        # a session on the demo target"
    fi
    say "  ssh -p $ssh_port $admin@127.0.0.1             # a menu of targets"
    say "  $sallyctl session ls      # who is connected"
    say "  $sallyctl session end ID  # end a session"
    say "  $sallyctl --help"
    say ""
    print_desktops "$sallyctl"
    if [ -n "$password" ]; then
        say "  User $admin, password $password (shown this once)"
        [ $keys -eq 0 ] || say "  Your public keys in ~/.ssh work too."
    else
        say "  User $admin; a new password: $sallyctl user passwd $admin"
    fi
    say "  Host key: $(fingerprint)"
    warn_old_host_key
    say "  Everything is kept in $dir; its configuration is $dir/proxy.conf"
    [ "$1" = foreign ] || say "  Ctrl-C ends the proxy, and its sessions with a notice."
    say ""
}

# ---- all of it ----

deps_install "$install" "${DEPS_BUILD[@]}"
choose_dir
build
admin=$(admin_name)
if is_up; then
    ssh_port=$(cat "$dir/ssh.port" 2>/dev/null || echo "$port_base")
    rdp_port=$(cat "$dir/rdp.port" 2>/dev/null || echo 3389)
    say "A proxy with $dir is running already."
    print_commands foreign
    exit 0
fi
[ $is_root = no ] || make_system_users
is_base_given=no
[ "$port_base" = "$(cat "$dir/port_base" 2>/dev/null || echo "$port_base")" ] || is_base_given=yes
echo "$port_base" >"$dir/port_base"
ssh_port=$(kept_port ssh "$port_base")
demo_port=$(kept_port demo "$((ssh_port + 1))")
rdp_port=$(kept_port rdp "$((port_base == 2222 ? 3389 : demo_port + 1))")
write_config
trap stop_all EXIT
trap 'exit 0' INT
trap 'exit 143' TERM HUP
start_broker
make_admin
if needs_demo; then
    make_demo
    start_demo
    make_demo_target
fi
print_commands own
status=0
wait "$broker_pid" || status=$?
broker_pid=
exit "$status"
