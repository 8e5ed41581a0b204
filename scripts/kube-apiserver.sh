#!/usr/bin/env bash
# Builds a kube-apiserver for the tests: no registry has the program, but Debian's source package of kubectl has all of
# Kubernetes. Some ten minutes of a processor and 3 GB below /tmp, which go afterwards; does nothing where it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILT=.services/kubernetes/kube-apiserver
GO=1.19

fail() {
    printf 'make kubernetes: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The mirror that this machine's own apt reads its main archive from.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1
}

# An apt of its own, for the sources that this machine's lists may lack.
prepare_apt() {
    local root=$1 keys=/usr/share/keyrings/debian-archive-keyring.gpg uri kind
    uri=$(mirror)
    [ -n "$uri" ] || fail "apt has no archive to read from: see sources.list(5), and run apt-get update"
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    for kind in deb deb-src; do
        printf '%s [signed-by=%s] %s bookworm main\n' "$kind" "$keys" "$uri"
    done >"$root/sources.list"
    cat >"$root/apt.conf" <<CONFIGURATION
Dir::State "$root/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$root/cache";
Dir::Etc::SourceList "$root/sources.list";
Dir::Etc::SourceParts "/dev/null";
Acquire::Languages "none";
CONFIGURATION
    if [ "$(id -u)" -eq 0 ]; then printf 'APT::Sandbox::User "root";\n' >>"$root/apt.conf"; fi
}

fetch() {
    local root=$1
    export APT_CONFIG=$root/apt.conf
    cd "$root"
    apt-get update -qq
    apt-get source -qq --download-only kubernetes
    apt-get download -qq "golang-$GO-go" "golang-$GO-src" golang-github-modern-go-reflect2-dev
    for package in ./*.deb; do dpkg -x "$package" "$root/unpacked"; done
    mkdir kubernetes
    tar -xzf kubernetes_*.orig.tar.gz -C kubernetes --strip-components 1
}

# Debian's compiler finds its library beside itself, and the old reflect2 crashes with any Go from 1.18 on.
adapt() {
    local root=$1 lib=$1/unpacked/usr/lib/go-$GO vendor=$1/kubernetes/vendor/github.com/modern-go/reflect2 name
    for name in api misc src test; do ln -sfn "../../share/go-$GO/$name" "$lib/$name"; done
    rm "$vendor"/*.go "$vendor"/*.s
    cp "$root"/unpacked/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$vendor"
    rm -f "$vendor"/*_test.go
}

build() {
    local root=$1
    export GOROOT=$root/unpacked/usr/lib/go-$GO GOCACHE=$root/gocache GOPROXY=off GOFLAGS=-mod=vendor
    export PATH=$GOROOT/bin:$PATH
    export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_TREE_STATE=clean KUBE_GIT_COMMIT=debian
    make -C "$root/kubernetes" WHAT=cmd/kube-apiserver
}

[ ! -x "$BUILT" ] || exit 0
command -v apt-get >/dev/null || fail "needs apt (Debian or a child of it)"
for program in etcd:etcd-server rsync:rsync gcc:gcc openssl:openssl; do
    command -v "${program%%:*}" >/dev/null || as_root apt-get install -y -qq "${program##*:}" >/dev/null ||
        fail "apt-get could not install ${program##*:}"
done
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
prepare_apt "$work"
(fetch "$work") || fail "the source of Kubernetes could not be fetched from Debian 12's archive"
adapt "$work"
(build "$work") || fail "it could not be built"
mkdir -p "$(dirname "$BUILT")"
cp -L "$work/kubernetes/_output/bin/kube-apiserver" "$BUILT"
"$BUILT" --version
