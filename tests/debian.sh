# shellcheck shell=bash
# To be sourced: packages of Debian's suites, whatever Debian this is, fetched by apt with lists and a cache of its own
# under target/debian and unpacked, installed nowhere. The mirror is the machine's own.

debian_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/debian

# The name that Debian has for an architecture as `uname -m` has it.
debian_arch() {
    case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) echo "no architecture of these tools: $1" >&2 && return 1 ;;
    esac
}

# apt-get or apt-cache with the lists of debian_lists.
debian_apt() {
    local program=$1
    shift
    timeout 600 "$program" --quiet --quiet -o Dir::Etc::SourceList="$debian_lists/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$debian_lists" -o Dir::State::Lists="$debian_lists/lists" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$debian_lists/cache" -o APT::Sandbox::User= \
        -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
        -o APT::Architecture="${debian_archs%% *}" -o APT::Architectures="${debian_archs// /,}" \
        -o APT::Install-Recommends=false -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# The machine's own mirror of Debian.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # for apt
    mirror=$(apt-get indextargets 'Label: Debian' 'Identifier: Packages' --format '$(REPO_URI)' | sed -n 1p)
    echo "${mirror:-http://deb.debian.org/debian/}"
}

# The package lists of some suites, a day old at most: debian_lists "ARCH…" SUITE…, the main architecture first. A suite
# that the mirror does not have any more is none; what is looked for in it is missed later, by name.
debian_lists() {
    debian_archs=$1
    shift
    debian_lists=$debian_root/lists-${debian_archs// /-}-$(printf '%s-' "$@" | cksum | cut -d ' ' -f 1)
    [ -z "$(find "$debian_lists/fresh" -mtime -1 2>/dev/null)" ] || return 0
    local mirror security suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror)
    # shellcheck disable=SC2016 # for apt
    security=$(apt-get indextargets 'Label: Debian-Security' 'Identifier: Packages' --format '$(REPO_URI)' | sed -n 1p)
    rm -rf "$debian_lists"
    mkdir -p "$debian_lists/lists/partial" "$debian_lists/cache/archives/partial"
    for suite; do
        case $suite in
        *-security) echo "deb [signed-by=$keyring] ${security:-${mirror%/}-security/} $suite main" ;;
        *) echo "deb [signed-by=$keyring] $mirror $suite main" ;;
        esac
    done >"$debian_lists/sources.list"
    debian_apt apt-get update || true
    touch "$debian_lists/fresh"
}

# The names of the packages and all that they depend on.
debian_closure() {
    debian_apt apt-get --simulate install "$@" | sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

# Unpacks packages over a directory: debian_unpack DIR PACKAGE…. A link for a directory there (/bin → usr/bin) stays.
debian_unpack() {
    local root=$1 debs deb
    shift
    mkdir -p "$root"
    debs=$(mktemp --directory --tmpdir="$debian_root" debs.XXXXXX)
    (cd "$debs" && debian_apt apt-get download "$@")
    for deb in "$debs"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --keep-directory-symlink --directory "$root" --warning=no-timestamp
    done
    rm -r "$debs"
}
