#!/bin/sh
# Builds the tools that judge what is under deploy/, once per user, and links them in build/bin.
# Each folder beside this file pins a tool: by go.mod and go.sum, package.json and its lock file, or requirements.txt.
# Usage: build.sh [NAME...]; without names all of them.
# Exit status: 0 the links are in place, 1 a build failed, 2 Go or npm is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/auditrace/tools
if [ $# = 0 ]; then
    set -- promtool prometheus helm docker-compose grammars kubernetes ocsf
fi

link() { # NAME FINISHED: made beside and renamed, so that a test that starts it now never finds the name missing.
    mkdir -p "$top/build/bin"
    ln -s "$2" "$top/build/bin/.$1.$$"
    # -T: what is there may be a link to a folder, and is to be replaced, not filled.
    mv -fT "$top/build/bin/.$1.$$" "$top/build/bin/$1"
    echo "$top/build/bin/$1 -> $2"
}

grammars() {
    hash=$(cat "$here"/grammars/* | sha256sum | cut -c 1-12)
    finished=$cache/grammars-$hash
    if [ ! -d "$finished" ]; then
        if ! command -v npm >/dev/null 2>&1; then
            echo "build.sh: npm is missing; install Node.js 20 or newer and run this again" >&2
            exit 2
        fi
        mkdir -p "$cache"
        work=$(mktemp -d "$cache/.build.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        cp "$here"/grammars/* "$work"
        echo "build.sh: installing grammars, some minutes" >&2
        # Their own bounds on Node.js and each other are those of their builds, which are not made here.
        if ! (cd "$work" && npm ci --ignore-scripts --legacy-peer-deps --no-audit --no-fund && echo '[]' | node check.js) >"$work/log" 2>&1; then
            tail -n 20 "$work/log" >&2
            exit 1
        fi
        chmod 755 "$work"
        mv -T "$work" "$finished" || [ -d "$finished" ]
    fi
    link grammars "$finished"
}

# A tool of Python: an environment of its own, so that its dependencies are nobody else's.
environment() { # NAME
    hash=$(sha256sum "$here/$1/requirements.txt" | cut -c 1-12)
    finished=$cache/$1-$hash
    # The marker comes last: an environment cannot be renamed once it was made.
    if [ ! -e "$finished/.finished" ]; then
        mkdir -p "$cache"
        rm -rf "$finished"
        echo "build.sh: installing $1, some minutes" >&2
        if ! {
            python3 -m venv "$finished" &&
                "$finished/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/$1/requirements.txt"
        } >"$cache/failed-$1.log" 2>&1; then
            tail -n 20 "$cache/failed-$1.log" >&2
            exit 1
        fi
        touch "$finished/.finished"
    fi
    link "$1" "$finished"
}

for name in "$@"; do
    # remove_all_sd: without the clouds' service discoveries, which are most of the build and find nothing here.
    case $name in
    promtool) module=prometheus package=github.com/prometheus/prometheus/cmd/promtool tags=remove_all_sd ;;
    prometheus) module=prometheus package=github.com/prometheus/prometheus/cmd/prometheus tags=remove_all_sd ;;
    helm) module=helm package=helm.sh/helm/v4/cmd/helm tags= ;;
    docker-compose) module=compose package=github.com/docker/compose/v5/cmd tags= ;;
    grammars)
        grammars
        continue
        ;;
    kubernetes | ocsf)
        environment "$name"
        continue
        ;;
    *)
        echo "build.sh: there is no tool $name; there are promtool, prometheus, helm, docker-compose, grammars, kubernetes and ocsf" >&2
        exit 1
        ;;
    esac
    # Both files are in the folder's name, so that another version of any dependency is another build.
    hash=$(cat "$here/$module/go.mod" "$here/$module/go.sum" | sha256sum | cut -c 1-12)
    finished=$cache/$name-$hash/$name
    if [ ! -x "$finished" ]; then
        if ! command -v go >/dev/null 2>&1; then
            echo "build.sh: Go is missing; install Go 1.26.7 or newer (your distribution's package, or the Go project's download page) and run this again" >&2
            exit 2
        fi
        mkdir -p "$cache"
        # Inside the cache folder, because a rename is atomic only within one file system.
        work=$(mktemp -d "$cache/.build.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        case $name in
        promtool) takes='about 4 minutes on two idle cores' ;;
        *) takes='some minutes' ;;
        esac
        echo "build.sh: building $name, $takes" >&2
        # CGO_ENABLED=0: no C compiler needed, and the binary runs anywhere. What is kept must start: hence the last step.
        if ! {
            (cd "$here/$module" && CGO_ENABLED=0 nice -n 10 go build -mod=readonly -trimpath -tags "$tags" \
                -ldflags '-s -w' -o "$work/$name" "$package") &&
                "$work/$name" --help
        } >"$work/log" 2>&1; then
            tail -n 20 "$work/log" >&2
            mv -f "$work/log" "$cache/failed-$name.log"
            echo "build.sh: the build of $name failed; the whole log is $cache/failed-$name.log" >&2
            exit 1
        fi
        mkdir -p "$cache/$name-$hash"
        mv -f "$work/$name" "$finished"
        rm -rf "$work"
    fi
    link "$name" "$finished"
done
