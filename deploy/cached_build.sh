# Functions of the build.sh scripts in the folders beside this file; to be sourced with `here` set to such a folder.
# A build is made once per user in a cache, and linked in build/bin of each clone.
# shellcheck shell=sh disable=SC2154 # `here` is set by the script
top=$(CDPATH='' cd -- "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/auditrace/$(basename -- "$here")

short_hash() { # FILE...: names the folder of a build, so that other inputs are another build
    cat -- "$@" | sha256sum | cut -c 1-12
}

require_go() { # VERSION
    if ! command -v go >/dev/null 2>&1; then
        echo "build.sh: Go is missing; install Go $1 or newer (your distribution's package, or the Go project's download page) and run this again" >&2
        exit 2
    fi
}

make_work_folder() { # sets `work`
    mkdir -p "$cache"
    # Inside the cache folder, because a rename is atomic only within one file system.
    work=$(mktemp -d "$cache/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Joined by &&, because `set -e` has no effect in a condition.
run_logged() { # NAME COMMAND...: ends the script when the command fails, and keeps its log
    name_of_log=$1
    shift
    if ! "$@" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        mv -f "$work/log" "$cache/failed-$name_of_log.log"
        echo "build.sh: the build of $name_of_log failed; the whole log is $cache/failed-$name_of_log.log" >&2
        exit 1
    fi
}

link() { # NAME FINISHED
    mkdir -p "$top/build/bin"
    # Made beside and renamed, so that the name is never missing for a test that starts the program now.
    ln -s "$2" "$top/build/bin/.$1.$$"
    # -T, which GNU mv has, replaces a link to a folder; without it, mv would move the new link into that folder.
    if [ -d "$2" ]; then no_folder=T; else no_folder=; fi
    mv "-f$no_folder" "$top/build/bin/.$1.$$" "$top/build/bin/$1"
    echo "$top/build/bin/$1 -> $2"
}

build_go() { # NAME FOLDER PACKAGE TAGS GO_VERSION DURATION: the module of FOLDER pins the program and its dependencies
    # Both files are in the folder's name, so that another version of any dependency is another build.
    finished=$cache/$1-$(short_hash "$2/go.mod" "$2/go.sum")/$1
    if [ ! -x "$finished" ]; then
        require_go "$5"
        make_work_folder
        echo "build.sh: building $1, $6" >&2
        run_logged "$1" go_program "$@"
        mkdir -p "$(dirname -- "$finished")"
        mv -f "$work/$1" "$finished"
        rm -rf "$work"
    fi
    link "$1" "$finished"
}

go_program() { # NAME FOLDER PACKAGE TAGS
    # CGO_ENABLED=0: no C compiler needed, and the binary runs anywhere. The last step checks that the program starts.
    (cd "$2" && CGO_ENABLED=0 nice -n 10 go build -mod=readonly -trimpath -tags "$4" -ldflags '-s -w' -o "$work/$1" "$3") &&
        "$work/$1" --help
}
