#!/bin/sh
# Tests lb.service under a real systemd, booted in a directory, which is written to. As root, on Debian; about a minute, and
# more for the first time: see debian.sh.
#
#   deploy/systemd/test.sh [DIRECTORY]
set -eu
# shellcheck source=deploy/debian.sh
. "$(dirname "$0")/../debian.sh"
cd "$(dirname "$0")"
exec go test -count=1 -v .
