#!/bin/sh
# prepare.sh [FOLDER [SEEN_AS [NATS_URL]]]
# Fills FOLDER (/etc/snappy) with the examples and fresh secrets: a folder for each role, readable by its owner alone.
# SEEN_AS is where the roles find it, if elsewhere. What is there already stays. Afterwards give each folder to the
# user, or carry it to the machine, that runs the role.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-/etc/snappy}"
folder=$(cd "${1:-/etc/snappy}" && pwd)
seen_as=${2:-$folder}
url=${3:-nats://127.0.0.1:4222}
snappy=${SNAPPY:-snappy}

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make() { # FILE: whole or not at all
    if [ ! -e "$1" ]; then
        cat >"$1.new"
        mv "$1.new" "$1"
    fi
}

for user in core audit site1 vault alice watcher; do
    mkdir -p "$folder/$user"
    random | make "$folder/$user/password"
    if [ -e "$here/examples/$user.toml" ]; then
        sed "s|/etc/snappy/|$seen_as/|; s|nats://127.0.0.1:4222|$url|" "$here/examples/$user.toml" | make "$folder/$user/snappy.toml"
    fi
done

random | make "$folder/site1/repository.password"
if [ ! -e "$folder/core/signing.key" ]; then
    "$snappy" keygen "$folder/core/signing.key"
fi
make "$folder/vault/core.public" <"$folder/core/signing.key.pub"

mkdir -p "$folder/nats"
make "$folder/nats/nats.conf" <"$here/nats.conf"
for user in core audit site1 vault alice watcher; do
    printf '%s_password: "%s"\n' "$user" "$(cat "$folder/$user/password")"
done | make "$folder/nats/secrets.conf"

echo "keep a copy of $folder/site1/repository.password elsewhere: without it no backup can be read" >&2
