# Sourced by ./demo and ./test: finds cargo, installs what is missing.
# shellcheck shell=bash

PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

need_cargo() {
    command -v cargo >/dev/null || die "cargo is not found. Install Rust with rustup (https://rustup.rs), \
then run this again."
    # The package says which version it needs; cargo's own complaint comes much later.
    local need have
    need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    have=$(cargo --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ] ||
        die "Rust $need or newer is needed, this is $have. Run: rustup update"
}

# need_components NAME ...: parts of the toolchain that some installations leave out. Each has a
# subcommand of cargo, named so or without `rust`.
need_components() {
    local component missing=()
    for component in "$@"; do
        cargo "${component#rust}" --version >/dev/null 2>&1 || missing+=("$component")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    printf 'Missing: %s\n' "${missing[*]}"
    if ! command -v rustup >/dev/null || ! rustup component add "${missing[@]}" </dev/null; then
        die "parts of the Rust toolchain are not there. Run: rustup component add ${missing[*]}"
    fi
}

# has WHAT: whether a program (a plain name), or a file that matches a pattern (/...), is there.
has() {
    case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# need WHAT=PACKAGE ...: installs the Debian package of everything that is not there.
need() {
    local item missing=() as_root=()
    for item in "$@"; do
        has "${item%%=*}" || missing+=("${item#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    printf 'Missing: %s\n' "${missing[*]}"
    has apt-get || die "please install the equivalents of these Debian packages: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "please run as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q </dev/null ||
        printf 'The package lists could not be renewed; trying with the old ones.\n'
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null ||
        die "could not install: ${missing[*]}"
}
