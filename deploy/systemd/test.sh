#!/bin/sh
# Tests lb.service under a real systemd, booted in a directory. As root, on Debian; about a minute, and 40 s more for the
# first time, when the directory is made (250 MB). What is installed: debootstrap, systemd-container.
#
#   deploy/systemd/test.sh [DIRECTORY]
set -eu
root=$(realpath -m "${1:-${LB_SYSTEMD_ROOT:-/var/tmp/lb-systemd}}")
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "only root can boot a container" >&2; exit 1; }
for need in debootstrap:debootstrap systemd-nspawn:systemd-container systemd-analyze:systemd; do
	command -v "${need%:*}" >/dev/null && continue
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need#*:}" >/dev/null
done
if [ ! -e "$root/made" ]; then
	rm -rf "$root.part"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,logrotate bookworm "$root.part"
	mkdir -p "$(dirname "$root")"
	touch "$root.part/made"
	mv "$root.part" "$root" # all of it or nothing
fi
LB_SYSTEMD_ROOT=$root exec go test -count=1 -v .
