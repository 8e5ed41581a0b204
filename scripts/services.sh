#!/usr/bin/env bash
# Installs what pip cannot bring and the tests want: Debian's restic, the newest restic beside it, Node.js with npm,
# the tools for extended attributes and file systems, and the servers that plug-ins back up. May be run again at any
# time; does nothing then.
set -euo pipefail
cd "$(dirname "$0")/.."

NEWEST=.services/restic-newest
PROGRAMS=(restic:restic setfattr:attr setfacl:acl node:nodejs npm:npm mkfs.ext4:e2fsprogs mkfs.btrfs:btrfs-progs losetup:mount
    pg_ctlcluster:postgresql ceph-mon:ceph-mon ceph-mgr:ceph-mgr ceph-osd:ceph-osd ceph:ceph-common rbd-fuse:rbd-fuse
    mariadbd:mariadb-server-core mariadb-dump:mariadb-client mariadb-backup:mariadb-backup
    redis-server:redis-server etcd:etcd-server etcdctl:etcd-client sshd:openssh-server
    radosgw:radosgw)

fail() {
    printf 'make services: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

missing_packages() {
    local pair
    for pair in "${PROGRAMS[@]}"; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
    done
}

update_lists() {
    as_root apt-get update -qq || fail "apt-get update failed: as root, and with a network?"
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -gt 0 ] || return 0
    printf 'installing %s\n' "${packages[*]}"
    update_lists
    if [[ " ${packages[*]} " == *" postgresql "* ]]; then without_cluster; fi
    apt_install "${packages[@]}"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        >/dev/null || fail "apt-get could not install $*"
}

# Tests start servers of their own: Debian shall make and start none.
without_cluster() {
    local settings=/etc/postgresql-common/createcluster.conf
    apt_install postgresql-common
    as_root sed -i 's/^#\?create_main_cluster *=.*/create_main_cluster = false/' "$settings"
}

# The mirror that this machine's own apt reads its main archive from.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1
}

# Debian unstable's package, through an apt of its own: a source list, lists and a cache that nothing else sees.
download_newest() {
    local root=$1 uri keys=/usr/share/keyrings/debian-archive-keyring.gpg
    uri=$(mirror)
    [ -n "$uri" ] || { update_lists && uri=$(mirror); }
    [ -n "$uri" ] || fail "apt has no archive to read from: see sources.list(5)"
    [ -r "$keys" ] || fail "the package debian-archive-keyring is not installed"
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    printf 'deb [signed-by=%s] %s sid main\n' "$keys" "$uri" >"$root/sources.list"
    cat >"$root/apt.conf" <<CONFIGURATION
Dir::State "$root/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$root/cache";
Dir::Etc::SourceList "$root/sources.list";
Dir::Etc::SourceParts "/dev/null";
Acquire::Languages "none";
CONFIGURATION
    if [ "$(id -u)" -eq 0 ]; then printf 'APT::Sandbox::User "root";\n' >>"$root/apt.conf"; fi
    (cd "$root" && APT_CONFIG=$root/apt.conf apt-get update -qq && APT_CONFIG=$root/apt.conf apt-get download -qq restic)
}

install_newest() {
    [ ! -x "$NEWEST/usr/bin/restic" ] || return 0
    local root
    root=$(mktemp -d)
    trap 'rm -rf "$root"' RETURN
    printf 'fetching the newest restic\n'
    download_newest "$root" || fail "Debian unstable's restic could not be fetched"
    rm -rf "$NEWEST"
    mkdir -p "$NEWEST"
    dpkg -x "$root"/restic_*.deb "$NEWEST"
}

command -v apt-get >/dev/null || fail "needs apt (Debian or a child of it); install restic, Node.js and attr by hand"
install_packages
install_newest
restic version
"$NEWEST/usr/bin/restic" version
printf 'node %s\n' "$(node --version)"
