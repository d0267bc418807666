#!/bin/sh
# Puts the secrets of the compose file where each service reads them: those in /given (docker/secrets/ of the host), else
# those of the last start, else new random ones. Every service has a volume of its own and sees no more than it needs.
set -eu
umask 0027

fail() {
    echo "secrets: $*" >&2
    exit 1
}

# secret NAME DIRECTORY: makes $value the secret of that name and keeps it in the directory.
secret() {
    if [ -e "/given/$1" ]; then
        [ -r "/given/$1" ] || fail "docker/secrets/$1 must be readable for uid $(id -u)"
        value=$(cat "/given/$1")
        [ -n "$value" ] || fail "docker/secrets/$1 is empty"
    elif [ -s "$2/$1" ]; then
        value=$(cat "$2/$1")
    else
        value=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
        echo "secrets: made a new $1"
    fi
    case $value in
        *[!A-Za-z0-9._~-]*) fail "docker/secrets/$1: letters, digits and . _ ~ - are expected, in one line" ;;
    esac
    keep "$2/$1" "$value"
}

# keep FILE TEXT: readers see the old file or the new one, never a part.
keep() {
    printf '%s\n' "$2" >"$1.new"
    chmod 0440 "$1.new"
    mv -f "$1.new" "$1"
}

secret admin_token /secrets/marketflow

secret postgres_superuser_password /secrets/postgres
secret postgres_password /secrets/postgres
keep /secrets/marketflow/postgres_dsn "postgresql://marketflow:$value@postgres:5432/marketflow"

secret redis_password /secrets/valkey
keep /secrets/marketflow/redis_url "redis://marketflow:$value@valkey:6379/0"
hash=$(printf %s "$value" | sha256sum | cut -d ' ' -f 1)
keep /secrets/valkey/users.acl "user default off
user marketflow on #$hash ~marketflow:* &marketflow:* +@all -@admin -@dangerous +info"
