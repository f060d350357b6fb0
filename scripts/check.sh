#!/bin/bash
# Checks that need no build: format, headers that compile alone, functions that we do not call,
# shell scripts, man pages, and that what the documents say of options exists. ctest runs it too.
# `scripts/check.sh --fix` formats the sources first.
set -uo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo" || exit 1
failures=0
fix=no
case ${1-} in
--fix) fix=yes ;;
"") ;;
*) echo "usage: scripts/check.sh [--fix]" >&2; exit 2 ;;
esac

# check WHAT COMMAND...: runs it; its output is shown only when it fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok      $what${output:+ ($output)}"
    else
        echo "FAILED  $what"
        printf '%s\n' "$output" | sed 's/^/        /'
        failures=$((failures + 1))
    fi
}

# Tracked files and new ones that are not ignored; a source archive has no git.
files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r file; do
            if [ -f "$file" ]; then echo "$file"; fi
        done
    else
        local pattern args=()
        for pattern in "$@"; do args+=(-o -path "./$pattern"); done
        find . -type f \( "${args[@]:1}" \) -not -path './build*' -not -path './var/*' | sed 's#^\./##'
    fi | sort -u
}

# ---- format: one version of clang-format, because they disagree with each other ----

format() {
    local tool sources
    tool=$(command -v clang-format-14 || command -v clang-format) || { echo "no clang-format"; return 0; }
    case $("$tool" --version) in
    *"version 14."*) ;;
    *) echo "skipped: needs clang-format 14"; return 0 ;;
    esac
    mapfile -t sources < <(files '*.c' '*.h')
    if [ "$fix" = yes ]; then "$tool" -i "${sources[@]}"; fi
    "$tool" --dry-run -Werror "${sources[@]}" 2>/dev/null && return 0
    echo "not as clang-format writes them (scripts/check.sh --fix does it):"
    "$tool" --dry-run "${sources[@]}" 2>&1 | sed -n 's/^\([^ :]*\):.*clang-format.*/\1/p' | sort | uniq -c
    return 1
}

# ---- headers ----

# Its version is in its name; without it one header is not looked at.
freerdp_client() {
    local name
    for name in freerdp-client3 freerdp-client2; do
        if pkg-config --exists "$name"; then echo "$name"; return; fi
    done
    echo libcrypto
}

headers() {
    local header flags status=0
    read -ra flags < <(pkg-config --cflags libssh libevent_core libcrypto sqlite3 jansson smartcols \
        libxcrypt libzstd libseccomp ncursesw "$(freerdp_client)" | tr '\n' ' ')
    while IFS= read -r header; do
        case $header in
        tests/*) continue ;;
        tracker/export/freerdp.h) [ "$(freerdp_client)" = libcrypto ] && continue ;;
        esac
        # Included twice: guards work. SALLYPORT_VERSION as the build defines it.
        printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
            "${CC:-gcc}" -std=c11 -D_GNU_SOURCE '-DSALLYPORT_VERSION="0"' -Iinclude -I. -I"$(dirname "$header")" \
                "${flags[@]}" -Wall -Wextra -Werror -fsyntax-only -x c - ||
            { echo "$header does not compile alone"; status=1; }
    done < <(files '*.h')
    return $status
}

# ---- functions that we do not call ----

banned() {
    local pattern sources
    pattern='\b(strcpy|strcat|strncpy|stpcpy|sprintf|vsprintf|gets|atoi|atol|atoll|atof|strtok|system|alloca|mktemp|tmpnam)[[:space:]]*\('
    mapfile -t sources < <(files '*.c' '*.h' | grep -v '^tests/')
    if grep -nE "$pattern" "${sources[@]}"; then
        echo "use snprintf, text_copy, text_parse_u64, buffer.h, posix_spawn instead"
        return 1
    fi
    if grep -nE '\bmalloc[[:space:]]*\([^;]*[a-z_)][[:space:]]*\*[[:space:]]*[a-z_(]' "${sources[@]}" |
        grep -v 'sizeof(\*'; then
        echo "use calloc for products"
        return 1
    fi
}

# ---- text ----

tidy() {
    local sources status=0
    mapfile -t sources < <(files '*.c' '*.h' '*.sh' '*.py' '*.cmake' '*.md' '*.scd' '*.example' \
        '*.service' 'CMakeLists.txt' '.ci/run')
    if grep -nE '[[:space:]]+$' "${sources[@]}"; then
        echo "blanks at the end of a line"
        status=1
    fi
    if grep -nE '\b(TODO|FIXME|XXX)\b' "${sources[@]}" | grep -v '^scripts/check.sh:' |
        grep -vE '(TODO|FIXME)\((#[0-9]+|[a-z]+)\)'; then
        echo "a TODO names an issue or an owner"
        status=1
    fi
    return $status
}

shell() {
    local scripts
    command -v shellcheck >/dev/null || { echo "no shellcheck"; return 0; }
    mapfile -t scripts < <({ files '*.sh'; files '.ci/*'; } | sort -u)
    shellcheck -x "${scripts[@]}"
}

python() {
    local sources
    mapfile -t sources < <(files '*.py')
    [ ${#sources[@]} -eq 0 ] && return 0
    python3 - "${sources[@]}" <<'END'
import ast, sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as f:
        ast.parse(f.read(), path)
END
}

man_pages() {
    local page status=0
    command -v scdoc >/dev/null || { echo "no scdoc"; return 0; }
    while IFS= read -r page; do
        scdoc <"$page" >/dev/null || { echo "$page"; status=1; }
    done < <(files 'docs/man/*.scd')
    return $status
}

# ---- options: what documents write as `[section] key` must be in the table ----

options() {
    local section key status=0 known
    known=$(awk '/^\[/ { gsub(/[][]/, ""); section = $1 }
        /^#[a-z_]+ = / { print section "." substr($1, 2) }' proxy.conf.example)
    while read -r section key; do
        grep -qxF "$section.$key" <<<"$known" ||
            { echo "a document names [$section] $key, which proxy.conf.example does not have"; status=1; }
    done < <(files '*.md' 'docs/man/*.scd' | xargs grep -ohE '\[(proxy|ssh|control|idle|limits|recording)\] [a-z]+(_[a-z]+)+' |
        tr -d '[]' | sort -u)
    return $status
}

check "format" format
check "headers compile alone" headers
check "no banned functions" banned
check "tidy text" tidy
check "shell scripts" shell
check "python parses" python
check "man pages" man_pages
check "options in documents" options
if [ $failures -gt 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
