#!/usr/bin/env bash
# System programs that parts of the build use: installed by apt where this runs as root, else named in one line.
#   tools/system.sh [latex] [rsvg] [npm] [chromium]
set -euo pipefail

packages_of() {
    case $1 in
        latex) echo latexmk texlive-latex-recommended texlive-fonts-recommended texlive-latex-extra texlive-science texlive-pictures ;;
        rsvg) echo librsvg2-bin ;;
        npm) echo npm ;;
        chromium) echo chromium ;;
    esac
}

there() {
    case $1 in
        latex) command -v latexmk && kpsewhich siunitx.sty && kpsewhich algorithm2e.sty && kpsewhich mathptmx.sty ;;
        rsvg) command -v rsvg-convert ;;
        npm) command -v npm ;;
        chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    esac >/dev/null 2>&1
}

without() {
    case $1 in
        latex) echo "tables and figures are made, the PDF is not" ;;
        rsvg) echo "SVG drawings are left out of tuxpaint and openclipart is not fetched" ;;
        npm) echo "the emoji sets are not fetched and formulas of the docs may stay LaTeX source" ;;
        chromium) echo "the docs are built but not tested in a browser" ;;
    esac
}

root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

wanted=()
for name in "$@"; do there "$name" || wanted+=("$name"); done

# Debian's lists are needed as well by the data sets that are Debian packages.
if root_with_apt; then
    lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -print -quit 2>/dev/null || true)
    if [ ${#wanted[@]} -gt 0 ] || [ -z "$lists" ]; then apt-get update -qq </dev/null >/dev/null || echo "system: apt-get update failed" >&2; fi
fi
if [ ${#wanted[@]} -gt 0 ] && root_with_apt; then
    for name in "${wanted[@]}"; do
        echo "system: installing $name"
        # shellcheck disable=SC2046
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(packages_of "$name") </dev/null >/dev/null || echo "system: apt could not install $name" >&2
    done
fi
for name in "$@"; do
    there "$name" || echo "system: no $name ($(packages_of "$name")): $(without "$name")." >&2
done
