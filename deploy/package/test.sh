#!/bin/sh
# Tests the life of the .deb on a machine (install, upgrade, removal, purge) under a real systemd, booted in a directory.
# As root, on Debian; about a minute, and more for the first time: see debian.sh. The directory is the one of
# deploy/systemd/test.sh, and is not written to.
#
#   deploy/package/test.sh [DIRECTORY]
set -eu
# shellcheck source=deploy/debian.sh
. "$(dirname "$0")/../debian.sh"
cd "$(dirname "$0")"
exec go test -count=1 -v -run 'TestLife$' .
