# What the scripts of this folder share. Sourced by them, from the root of the repository.
# shellcheck shell=bash

say() { printf '%s\n' "packaging/${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Where packages are laid. The scripts read these.
# shellcheck disable=SC2034
{
    out=target/packages
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/litellm-webui-sync/packaging
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    # The same commit gives the same archives.
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
    export SOURCE_DATE_EPOCH
}

# Sets `arch` to the architecture asked for, or this machine's, and `deb_arch` to what Debian calls it.
architecture() {
    arch=${1:-$(uname -m)}
    case $arch in
        x86_64) deb_arch=amd64 ;;
        aarch64) deb_arch=arm64 ;;
        *) die "'$arch' is none of x86_64 and aarch64" ;;
    esac
    export deb_arch
}

# Installs packages of PyPI into a folder of ours, and puts their programs on the PATH: pypi FOLDER NAME==VERSION…
pypi() {
    local folder=$cache/$1
    shift
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ]; then
        say "installing $* into $folder"
        rm -rf "$folder"
        python3 -m venv "$folder" || die "python3 with venv is missing"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2 || die "could not install $*"
        echo "$*" >"$folder/installed"
    fi
    PATH=$folder/bin:$PATH
}

# podman or docker, whichever there is, or the one that ENGINE names.
engine() {
    local engine
    for engine in ${ENGINE:-podman docker}; do
        if has "$engine"; then echo "$engine"; return; fi
    done
    die "install podman, or docker"
}
