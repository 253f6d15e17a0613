#!/bin/sh
# Gets a bare clone ready for what its argument says, `devnet` or, without one, `tests`: npm packages by the lock file, and the
# host programs that vservers need, through one step of `slicenet doctor`, which says what it installs. Tests have a kernel for
# a virtual machine as well, which is kept beside the npm packages. Does nothing, quickly, when all is there. Talks on stderr
# only.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-tests}
exec 1>&2
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo 'installing npm packages'
  npm ci --loglevel=error
fi
PATH="$PWD/node_modules/.bin:$PATH"
if ! node src/cli/main.ts doctor --for "$purpose" >/dev/null 2>&1; then
  node src/cli/main.ts doctor --for "$purpose" --install
fi
if [ "$purpose" = tests ]; then
  node test/linux/vm/fetch-kernel.ts || echo 'without that kernel, the tests in a virtual machine will fail'
fi
