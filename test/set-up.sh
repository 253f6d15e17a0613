#!/bin/sh
# Gets a bare clone ready: npm packages by the lock file, then the host programs that vservers need, through one step of
# `slicenet doctor`, which says what it installs. Does nothing, quickly, when all is there. Talks on stderr only.
set -eu
cd "$(dirname "$0")/.."
exec 1>&2
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo 'installing npm packages'
  npm ci --loglevel=error
fi
PATH="$PWD/node_modules/.bin:$PATH"
if ! node src/cli/main.ts doctor --for tests >/dev/null 2>&1; then
  node src/cli/main.ts doctor --for tests --install
fi
