#!/bin/sh
# Tests the life of the .deb on a machine (install, upgrade, removal, purge) under a real systemd, booted in a directory.
# As root, on Debian; about a minute, and 40 s more for the first time, when the directory is made (250 MB). It is the one
# of deploy/systemd/test.sh, and is not written to. What is installed: debootstrap, systemd-container.
#
#   deploy/package/test.sh [DIRECTORY]
set -eu
root=$(realpath -m "${1:-${LB_SYSTEMD_ROOT:-/var/tmp/lb-systemd}}")
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "only root can boot a container" >&2; exit 1; }
for need in debootstrap:debootstrap systemd-nspawn:systemd-container; do
	command -v "${need%:*}" >/dev/null && continue
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need#*:}" >/dev/null
done
if [ ! -e "$root/made" ]; then
	mkdir -p "$(dirname "$root")"
	rm -rf "$root.part"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,logrotate bookworm "$root.part"
	touch "$root.part/made"
	mv "$root.part" "$root" # all of it or nothing
fi
LB_SYSTEMD_ROOT=$root exec go test -count=1 -v -run 'TestLife$' .
