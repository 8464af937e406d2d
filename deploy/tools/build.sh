#!/bin/sh
# Builds the tools that check the files under deploy/, once per user, and links them in build/bin.
# Each folder beside this file pins a tool: by go.mod and go.sum, package.json and its lock file, or requirements.txt.
# Usage: build.sh [NAME...]; without names all of them.
# Exit status: 0 the links are in place, 1 a build failed, 2 Go or npm is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/../cached_build.sh"
if [ $# = 0 ]; then
    set -- promtool prometheus helm docker-compose grammars kubernetes ocsf supply
fi

grammars() {
    finished=$cache/grammars-$(short_hash "$here"/grammars/*)
    if [ ! -d "$finished" ]; then
        if ! command -v npm >/dev/null 2>&1; then
            echo "build.sh: npm is missing; install Node.js 20 or newer and run this again" >&2
            exit 2
        fi
        make_work_folder
        cp "$here"/grammars/* "$work"
        echo "build.sh: installing grammars, some minutes" >&2
        run_logged grammars installed_grammars
        chmod 755 "$work"
        mv -T "$work" "$finished" || [ -d "$finished" ]
    fi
    link grammars "$finished"
}

installed_grammars() {
    # --legacy-peer-deps: their bounds on Node.js and on each other only matter for builds, which are not made here.
    (cd "$work" && npm ci --ignore-scripts --legacy-peer-deps --no-audit --no-fund && echo '[]' | node check.js)
}

# A Python tool: it has its own environment, so that its dependencies do not mix with those of other tools.
environment() { # NAME
    finished=$cache/$1-$(short_hash "$here/$1/requirements.txt")
    # The marker is made last, because an environment cannot be renamed.
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
    # remove_all_sd leaves out the service discoveries of clouds: they are most of the build and are not needed here.
    case $name in
    promtool) module=prometheus package=github.com/prometheus/prometheus/cmd/promtool tags=remove_all_sd ;;
    prometheus) module=prometheus package=github.com/prometheus/prometheus/cmd/prometheus tags=remove_all_sd ;;
    helm) module=helm package=helm.sh/helm/v4/cmd/helm tags= ;;
    docker-compose) module=compose package=github.com/docker/compose/v5/cmd tags= ;;
    grammars)
        grammars
        continue
        ;;
    kubernetes | ocsf | supply)
        environment "$name"
        continue
        ;;
    *)
        echo "build.sh: there is no tool $name; there are promtool, prometheus, helm, docker-compose, grammars, kubernetes, ocsf and supply" >&2
        exit 1
        ;;
    esac
    case $name in
    promtool) takes='about 4 minutes on two idle cores' ;;
    *) takes='some minutes' ;;
    esac
    build_go "$name" "$here/$module" "$package" "$tags" 1.26.7 "$takes"
done
