#!/bin/sh
# Installs cortex-embed for one person, without root:
#
#     curl -fsSL https://github.com/cortex-embed/cortex-embed/releases/latest/download/install.sh | sh
#     ... | sh -s -- --slim --dir "$HOME/bin"
#
# It must never run or keep what did not match its SHA-256, edit a start-up file of a shell, or touch
# a file that it did not put there. Every step is a function and the last line, in braces, calls them: a
# download of this script that was cut anywhere runs nothing.

# targets: begin (python -m release.manifests --scripts)
REPOSITORY='cortex-embed/cortex-embed'
SUMS='SHA256SUMS'
# Target, C library or system, its oldest version, the assets: full, slim, onedir.
targets() {
    cat <<'TABLE'
linux-x64 glibc 2.28 cortex-embed-linux-x64.tar.gz cortex-embed-slim-linux-x64.tar.gz cortex-embed-onedir-linux-x64.tar.gz
linux-arm64 glibc 2.28 cortex-embed-linux-arm64.tar.gz cortex-embed-slim-linux-arm64.tar.gz cortex-embed-onedir-linux-arm64.tar.gz
macos-arm64 macOS 14.0 cortex-embed-macos-arm64.tar.gz cortex-embed-slim-macos-arm64.tar.gz cortex-embed-onedir-macos-arm64.tar.gz
macos-x64 macOS 13.4 cortex-embed-macos-x64.tar.gz cortex-embed-slim-macos-x64.tar.gz cortex-embed-onedir-macos-x64.tar.gz
TABLE
}
# targets: end

NAME=cortex-embed
# What an archive holds beside the executable; the directory form has _internal/ too.
PAPERS='LICENSE THIRD-PARTY-LICENSES.txt README.md'

say() { printf '%s\n' "$*"; }

# To the script's own stderr (see main): a trap may run where stderr goes to a file.
warn() { printf 'install.sh: %s\n' "$*" >&3; }

die() {
    warn "$@"
    exit 1
}

usage() {
    cat <<HELP
Install $NAME for yourself: one file, no root.

    install.sh [--version X] [--slim | --onedir] [--dir DIR] [--base-url URL]
    install.sh --uninstall [--dir DIR]

  --version X     the release X, such as 0.1.0; otherwise the newest
  --slim          without the model, which is then downloaded at the first start
  --onedir        the directory form: quicker to start, and no temporary files
  --dir DIR       where the command goes; otherwise \$HOME/.local/bin
  --base-url URL  the directory that the assets are in; otherwise GitHub. https:// only, but for
                  this machine itself (http://127.0.0.1:PORT, file:///PATH).
                  CORTEX_EMBED_BASE_URL does the same.
  --uninstall     remove what this script put into DIR
  --help          this text
HELP
}

main() {
    # Traps and word splitting as POSIX has them.
    if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
    set -u
    umask 022
    exec 3>&2
    version='' form=full dir='' base=${CORTEX_EMBED_BASE_URL:-} action=install
    staging='' made='' target='' asset='' library=''
    read_options "$@"
    trap 'clean' EXIT
    trap 'warn interrupted; exit 129' HUP
    trap 'warn interrupted; exit 130' INT
    trap 'warn interrupted; exit 143' TERM
    choose_directory
    if [ "$action" = uninstall ]; then
        uninstall
        return
    fi
    choose_source
    detect
    refuse_strangers_file
    choose_tools
    stage
    download
    verify
    unpack
    try_out
    put_in_place
    report
}

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --slim | --onedir)
            [ "$form" = full ] || misused "--slim and --onedir are two different assets: choose one."
            form=${1#--}
            ;;
        --uninstall) action=uninstall ;;
        --version=* | --dir=* | --base-url=*)
            set_option "${1%%=*}" "${1#*=}"
            ;;
        --version | --dir | --base-url)
            [ $# -gt 1 ] || misused "$1 needs a value."
            set_option "$1" "$2"
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) misused "'$1' is no option of this script." ;;
        esac
        shift
    done
}

set_option() {
    [ -n "$2" ] || misused "$1 needs a value."
    case $1 in
    --version) version=${2#v} ;;
    --dir) dir=$2 ;;
    --base-url) base=$2 ;;
    esac
    case $version in
    *[!0-9A-Za-z.+-]*) misused "'$version' is no version; one looks like 0.1.0." ;;
    esac
}

misused() {
    warn "$@" "See --help."
    exit 2
}

# --- where to, and where from -------------------------------------------------------------------

choose_directory() {
    if [ -z "$dir" ]; then
        [ "$(id -u)" != 0 ] || die "this is root, and root is not needed. Run it as yourself, or" \
            "say where to: --dir /usr/local/bin"
        [ -n "${HOME:-}" ] || die "HOME is not set. Say where to: --dir DIR"
        dir=$HOME/.local/bin
    fi
    case $dir in
    *'
'*) die "--dir: a directory with a line break in its name is not supported." ;;
    /*) ;;
    *) dir=$(pwd)/$dir ;;
    esac
    while [ "$dir" != / ] && [ "${dir%/}" != "$dir" ]; do dir=${dir%/}; done
    if [ "$dir" = "${HOME:-}/.local/bin" ]; then
        library=$HOME/.local/share/$NAME
    else
        library=$dir/$NAME-onedir
    fi
    receipt=$dir/.$NAME-receipt
}

choose_source() {
    if [ -z "$base" ]; then
        base=https://github.com/$REPOSITORY/releases/latest/download
        [ -z "$version" ] || base=https://github.com/$REPOSITORY/releases/download/v$version
    fi
    while [ "${base%/}" != "$base" ]; do base=${base%/}; done
    case $base in
    https://?* | file:///*) ;;
    http://*) is_loopback "${base#http://}" || die "$base: http is not safe to install from." \
        "Give an https:// address (or one of this machine: http://127.0.0.1:PORT, file:///PATH)." ;;
    *) die "'$base' is no address to download from. Give an https:// one." ;;
    esac
}

# Is AUTHORITY/PATH on this machine? No name but localhost, and nobody before an @.
is_loopback() {
    authority=${1%%[/?#]*}
    case $authority in
    '[::1]') return 0 ;;
    '[::1]:'*) port=${authority#'[::1]:'} host=::1 ;;
    *:*) port=${authority#*:} host=${authority%%:*} ;;
    *) port=80 host=$authority ;;
    esac
    case $port in '' | *[!0-9]*) return 1 ;; esac
    case $host in
    localhost | ::1) return 0 ;;
    127.*[!0-9.]*) return 1 ;;
    127.*) return 0 ;;
    esac
    return 1
}

# --- what this machine is -----------------------------------------------------------------------

detect() {
    system=$(uname -s) machine=$(uname -m)
    case $system in
    Linux) os=linux ;;
    Darwin) os=macos ;;
    MINGW* | MSYS* | CYGWIN*) die "this is Windows: use install.ps1 in PowerShell." ;;
    *) unsupported "there is no build for $system" ;;
    esac
    case $machine in
    x86_64 | amd64) arch=x64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) unsupported "there is no build for $system on $machine" ;;
    esac
    # A shell under Rosetta says x86_64; the machine runs the other one, and faster.
    if [ "$os" = macos ] && [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ]; then
        arch=arm64
    fi
    if [ "$os" = linux ] && [ "$(getconf LONG_BIT 2>/dev/null)" = 32 ]; then
        unsupported "the kernel is 64-bit ($machine), the system on it is 32-bit"
    fi
    target=$os-$arch
    row=$(targets | grep "^$target ") || unsupported "there is no build for $target"
    # shellcheck disable=SC2086 # the words of one line of the table
    set -- $row
    needs=$2 minimum=$3
    case $form in full) asset=$4 ;; slim) asset=$5 ;; onedir) asset=$6 ;; esac
    top=${asset%.tar.gz}
    if [ "$os" = linux ]; then check_glibc; else check_macos; fi
}

unsupported() {
    die "$1. There are builds for: $(target_names). Others can run it from source with Python:" \
        "https://github.com/$REPOSITORY"
}

target_names() { targets | while read -r name _; do printf '%s ' "$name"; done && printf windows-x64; }

check_glibc() {
    found=$(getconf GNU_LIBC_VERSION 2>/dev/null) || found=''
    found=${found#glibc }
    if [ -z "$found" ]; then
        # musl's ldd writes to stderr, and fails.
        told=$(ldd --version 2>&1 </dev/null) || :
        case $told in
        *musl*)
            die "this system's C library is musl (Alpine?), and there is no build for it: ONNX" \
                "Runtime is not published for musl. Use a system or an image with glibc $minimum" \
                "or newer (Debian, Ubuntu, Fedora, ...); gcompat is not enough."
            ;;
        esac
        found=$(printf '%s\n' "$told" | sed -n '1s/.*[^0-9.]\([0-9][0-9]*\.[0-9][0-9.]*\)[^0-9]*$/\1/p')
    fi
    case $found in
    '' | *[!0-9.]*)
        warn "could not find out which glibc this is ($needs $minimum is needed); trying."
        ;;
    *)
        if older "$found" "$minimum"; then
            die "glibc $found is too old: $NAME needs glibc $minimum or newer (Debian 10," \
                "Ubuntu 20.04, RHEL 8, or later). Run it in such a container, or on such a system."
        fi
        ;;
    esac
}

check_macos() {
    # Without this variable an old process is told 10.16.
    found=$(SYSTEM_VERSION_COMPAT=0 sw_vers -productVersion)
    if older "$found" "$minimum"; then
        die "macOS $found is too old: the build for $target needs macOS $minimum or newer."
    fi
}

# Is the dotted version $1 older than $2?
older() {
    left=$1 right=$2
    while [ -n "$left$right" ]; do
        ours=${left%%.*} theirs=${right%%.*}
        [ "${ours:-0}" -eq "${theirs:-0}" ] || {
            [ "${ours:-0}" -lt "${theirs:-0}" ]
            return
        }
        case $left in *.*) left=${left#*.} ;; *) left='' ;; esac
        case $right in *.*) right=${right#*.} ;; *) right='' ;; esac
    done
    return 1
}

# --- what is already there ----------------------------------------------------------------------

# All values of one key of the receipt, a line each.
receipt_values() {
    [ ! -f "$receipt" ] || sed -n "s/^$1 //p" "$receipt"
}

# Is DIR/cortex-embed still what this script put there?
is_ours() {
    if [ -L "$dir/$NAME" ]; then
        receipt_values link | grep -qxF "$(readlink "$dir/$NAME")"
    else
        [ -f "$dir/$NAME" ] && receipt_values sha256 | grep -qxF "$(sha256 "$dir/$NAME")"
    fi
}

refuse_strangers_file() {
    hasher=$(choose_hasher) || die "no program here computes SHA-256 (sha256sum, shasum or" \
        "openssl), and without the check nothing is installed. Install one of them."
    if [ -e "$dir/$NAME" ] || [ -L "$dir/$NAME" ]; then
        is_ours || die "$dir/$NAME is there, and was not put there by this script (pip? by" \
            "hand?). Remove it, or say where else to: --dir DIR"
    fi
}

# --- tools --------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

choose_hasher() {
    for tool in sha256sum shasum openssl; do
        if has "$tool"; then
            printf '%s' "$tool"
            return
        fi
    done
    return 1
}

sha256() {
    case $hasher in
    sha256sum) sum=$(sha256sum <"$1") ;;
    shasum) sum=$(shasum -a 256 <"$1") ;;
    openssl) sum=$(openssl dgst -sha256 -r <"$1") ;;
    esac || return 1
    printf '%s' "${sum%% *}"
}

choose_tools() {
    for tool in tar gzip mktemp; do
        has "$tool" || die "'$tool' is needed, and is not here."
    done
    case $base in
    file://*) fetcher=copy ;;
    *)
        if has curl; then
            fetcher=curl
        elif has wget; then
            fetcher=wget
            case $base in
            https://*)
                wget --version 2>/dev/null | grep -q 'GNU Wget' || die "this wget (BusyBox's?)" \
                    "does not check certificates. Install curl, or GNU wget."
                ;;
            esac
        else
            die "curl or wget is needed to download, and neither is here."
        fi
        ;;
    esac
}

# --- the download -------------------------------------------------------------------------------

# In the nearest directory that exists: on the same file system, so that the last step is a rename.
stage() {
    anchor=$dir
    while [ ! -e "$anchor" ] && [ ! -L "$anchor" ]; do anchor=$(dirname "$anchor"); done
    [ -d "$anchor" ] || die "$anchor is no directory. Say where else to: --dir DIR"
    staging=$(mktemp -d "$anchor/.$NAME-install.XXXXXX" 2>/dev/null) ||
        die "cannot write in $anchor. Say where else to: --dir DIR"
}

clean() {
    [ -z "$staging" ] || rm -rf "$staging"
    staging=''
    # What was made for an installation that did not happen.
    remove_empty "$made"
    made=''
}

# Directories, a line each, the innermost first; those that hold something stay.
remove_empty() {
    printf '%s\n' "$1" | while IFS= read -r directory; do
        [ -z "$directory" ] || rmdir "$directory" 2>/dev/null || :
    done
}

download() {
    say "Installing $NAME ($form, $target) from $base"
    fetch "$SUMS"
    expected=$(expected_sum) || exit 1
    fetch "$asset"
}

fetch() {
    url=$base/$1
    # Not into a file: a full disk is one of the reasons.
    said=$(fetch_with_$fetcher "$1" 2>&1)
    code=$?
    [ $code != 0 ] || return 0
    said=$(printf '%s\n' "$said" | tail -n 1)
    case "$fetcher$code $said" in
    # Could not write; or was stopped by a limit on the size of files (SIGXFSZ).
    'curl23 '* | 'wget3 '* | *'153 '* | *'No space'*) die "cannot write in $staging while downloading $url: is the disk full?" \
        "($said)" ;;
    esac
    case $said in
    *404* | *'No such file'*)
        die "there is no $url${version:+ (is there a release $version?)}." \
            "Releases have builds for: $(target_names)."
        ;;
    esac
    die "could not download $url: ${said:-$fetcher ended with $code}. Nothing was installed."
}

fetch_with_copy() { cp "${url#file://}" "$staging/$1"; }

fetch_with_curl() {
    watched=''
    if [ -t 3 ] && [ "$1" != "$SUMS" ]; then watched=1; fi
    set -- --fail --connect-timeout 30 --retry 2 --output "$staging/$1"
    case $base in
    https://*) set -- "$@" --location --proto '=https' --tlsv1.2 ;;
    *) set -- "$@" --proto '=http' ;;
    esac
    if [ "$watched" ]; then
        curl "$@" --progress-bar --write-out '%{http_code}' "$url" 2>&3
    else
        curl "$@" --silent --show-error "$url"
    fi
}

fetch_with_wget() {
    set -- -O "$staging/$1"
    if wget --version 2>/dev/null | grep -q 'GNU Wget'; then
        set -- "$@" --no-verbose --tries=3 --timeout=30
        case $base in https://*) set -- "$@" --secure-protocol=TLSv1_2 ;; esac
    fi
    wget "$@" "$url"
}

# The one line of the sums that names the asset.
expected_sum() {
    lines=0 found=''
    while read -r sum file; do
        if [ "$file" = "$asset" ]; then
            lines=$((lines + 1)) found=$sum
        fi
    done <"$staging/$SUMS"
    [ $lines = 1 ] || die "$base/$SUMS names $asset $lines times, not once. Nothing was installed."
    case $found in
    *[!0-9a-f]*) found='' ;;
    esac
    [ ${#found} = 64 ] || die "$base/$SUMS: the line of $asset has no SHA-256. Nothing was installed."
    printf '%s' "$found"
}

verify() {
    got=$(sha256 "$staging/$asset") || die "could not compute the SHA-256 of $asset ($hasher)."
    [ "$got" = "$expected" ] || die "$asset is not what $SUMS says: damaged, cut short, or" \
        "tampered with.
  expected $expected
  got      $got
Nothing was installed."
    say "SHA-256 verified: $got"
}

# --- the archive --------------------------------------------------------------------------------

unpack() {
    said=$(tar -tzf "$staging/$asset" 2>&1 >"$staging/members") ||
        die "$asset is no archive that tar can read: $said"
    present=0
    while IFS= read -r member; do
        is_expected "$member" || die "$asset holds '$member', which is not part of it." \
            "Nothing was installed."
        [ "$member" != "$top/$NAME" ] || present=1
    done <"$staging/members"
    [ $present = 1 ] || die "$asset does not hold $top/$NAME. Nothing was installed."
    said=$(tar -xzof "$staging/$asset" -C "$staging" 2>&1) ||
        die "could not unpack $asset into $staging (is the disk full?): $said"
    fresh=$staging/$top/$NAME
    if [ -L "$fresh" ] || [ ! -f "$fresh" ]; then die "$asset: $top/$NAME is no plain file."; fi
    chmod 755 "$fresh"
    rm -f "$staging/$asset"
}

is_expected() {
    case /$1/ in */../* | */./* | //*) return 1 ;; esac
    case $1 in
    "$top" | "$top/" | "$top/$NAME") return 0 ;;
    "$top/_internal" | "$top/_internal/"*)
        [ "$form" = onedir ]
        return
        ;;
    esac
    for paper in $PAPERS; do
        [ "$1" != "$top/$paper" ] || return 0
    done
    return 1
}

try_out() {
    said=$("$fresh" --version </dev/null 2>&1)
    code=$?
    if [ $code != 0 ]; then
        if [ $code = 126 ]; then
            warn "$dir may be on a file system that runs no programs (noexec): try --dir DIR."
        fi
        die "the downloaded program does not run here (exit code $code):" \
            "$said Nothing was installed."
    fi
    installed=$(printf '%s\n' "$said" | sed -n "s/^$NAME \([^ ]*\)\$/\1/p" | sed 1q)
    [ -n "$installed" ] ||
        die "the downloaded program calls itself '$said'. Nothing was installed."
    if [ -n "$version" ] && [ "$installed" != "$version" ]; then
        die "asked for $version, and $base has $installed. Nothing was installed."
    fi
}

# --- the change ---------------------------------------------------------------------------------

put_in_place() {
    before=$(receipt_values version | sed 1q)
    old_trees=$(receipt_values tree) previous=$(receipt_values tree | sed 1q)
    make_directory "$dir"
    sum='' link='' tree=''
    if [ "$form" = onedir ]; then
        make_directory "$library"
        # A directory of its own for each asset, so that the change is one link's.
        tree=$library/$installed-$(printf '%.12s' "$expected") link=$tree/$NAME
        ln -s "$link" "$staging/$NAME" || die "cannot make a link in $staging."
        fresh=$staging/$NAME
    else
        sum=$(sha256 "$fresh")
    fi
    write_receipt
    [ -z "$tree" ] || place_tree
    # Renames: a start meanwhile gets the old program or the new one, never half of one. The
    # receipt is first, and knows both: what is there can always be removed again.
    if ! mv -f "$staging/receipt" "$receipt" || ! mv -f "$fresh" "$dir/$NAME"; then
        die "could not put $NAME into $dir."
    fi
    made=''
    remove_trees
}

place_tree() {
    if [ -e "$tree" ]; then mv "$tree" "$staging/replaced" || die "could not replace $tree."; fi
    mv "$staging/$top" "$tree" || die "could not put $NAME into $tree."
}

write_receipt() {
    {
        say "version $installed"
        say "asset $asset"
        printf '%s\n' "$sum" "$(receipt_values sha256 | sed 1q)" | sed -n 's/./sha256 &/p'
        printf '%s\n' "$link" "$(receipt_values link | sed 1q)" | sed -n 's/./link &/p'
        printf '%s\n' "$tree" "$previous" | sed -n 's/./tree &/p' | uniq
        printf '%s\n' "$made" "$(receipt_values made)" | sed -n 's/./made &/p'
    } >"$staging/receipt" || die "cannot write in $staging: is the disk full?"
}

# The tree before this one stays until the next time: a server may still run from it.
remove_trees() {
    printf '%s\n' "$old_trees" | while IFS= read -r place; do
        if [ "$place" != "$tree" ] && [ "$place" != "$previous" ]; then remove_tree "$place"; fi
    done
}

# Only what is directly in the library, whatever a receipt says.
remove_tree() {
    case ${1#"$library"/} in
    "$1" | '' | . | .. | */*) return 1 ;;
    esac
    rm -rf "$1"
}

# Notes the directories that it makes, the innermost first.
make_directory() {
    missing='' parent=$1
    while [ ! -d "$parent" ]; do
        missing="$missing$parent
"
        parent=$(dirname "$parent")
    done
    made="$missing$made"
    mkdir -p "$1" || die "cannot make $1. Say where else to: --dir DIR"
}

# --- what was done ------------------------------------------------------------------------------

report() {
    if [ -n "$before" ]; then
        say "Installed $NAME $installed in place of $before: $dir/$NAME"
        say "A server that is running is still the old one: restart it."
    else
        say "Installed $NAME $installed: $dir/$NAME"
    fi
    [ -z "$tree" ] || say "Its files are in $tree"
    if has gh; then
        say "Where it was built can be verified with:"
        say "  curl -fsSLO $base/$asset && gh attestation verify $asset --repo $REPOSITORY"
    fi
    case :$PATH: in
    *:"$dir":*)
        say "Run it:  $NAME serve"
        first=$(command -v "$NAME") || first=''
        [ "$first" = "$dir/$NAME" ] || warn "'$NAME' is $first, which comes before it on PATH."
        ;;
    *)
        case $dir in
        *[!A-Za-z0-9/._-]*) say "Run it:  '$dir/$NAME' serve" ;;
        *) say "Run it:  $dir/$NAME serve" ;;
        esac
        say "$dir is not on PATH. To have the command by its name, add to your shell's start-up file:"
        say "  export PATH=\"$dir:\$PATH\""
        ;;
    esac
    where=''
    [ "$dir" = "${HOME:-}/.local/bin" ] || where=" --dir '$dir'"
    say "Remove it:  this script with --uninstall$where"
}

uninstall() {
    [ -f "$receipt" ] || die "nothing in $dir was put there by this script (no $receipt)." \
        "Say where it is: --dir DIR"
    hasher=$(choose_hasher) || die "no program here computes SHA-256 (sha256sum, shasum or" \
        "openssl), so it cannot be told whether $dir/$NAME is ours. Remove it by hand."
    if is_ours; then
        rm -f "$dir/$NAME" || die "cannot remove $dir/$NAME."
        say "Removed $dir/$NAME"
    elif [ -e "$dir/$NAME" ] || [ -L "$dir/$NAME" ]; then
        warn "$dir/$NAME is another one than this script installed: left as it is."
    fi
    receipt_values tree | while IFS= read -r place; do
        remove_tree "$place" && say "Removed $place"
    done
    directories=$(receipt_values made)
    rm -f "$receipt"
    remove_empty "$directories"
    say "Downloaded models and services that you made of it are not touched."
}

{ main "$@"; }
