# shellcheck shell=sh
# Sourced by the test.sh of systemd/ and package/: root is then a directory with a Debian to boot, made if there is none (250 MB,
# 40 s). $1 or LB_SYSTEMD_ROOT may name another. What is installed: debootstrap, systemd-container.
root=$(realpath -m "${1:-${LB_SYSTEMD_ROOT:-/var/tmp/lb-systemd}}")
[ "$(id -u)" = 0 ] || { echo "only root can boot a container" >&2; exit 1; }
for need in debootstrap:debootstrap systemd-nspawn:systemd-container systemd-analyze:systemd; do
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
export LB_SYSTEMD_ROOT="$root"
