# shellcheck shell=sh
user() {
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers /usr/lib/sysusers.d/lb.conf
	elif ! getent passwd lb >/dev/null; then
		useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lb
	fi
}

# After the files of another version are there: its process goes on with the old ones until here.
renew() {
	systemctl --quiet is-active lb.service || return 0
	# The new program takes the listeners over, proves itself, and only then the old one ends: nobody notices.
	code=0
	/usr/bin/lb upgrade /etc/lb/config.toml || code=$?
	case $code in
	0) ;;
	1)
		# The new one did not come to be ready. A restart would end the old one, which serves, for one that does not.
		echo "lb: the old version goes on. When that is put right: lb upgrade /etc/lb/config.toml" >&2
		;;
	*)
		# The one that runs cannot hand over, or is not to be found by that file.
		if /usr/bin/lb check /etc/lb/config.toml; then
			echo "lb: restarting instead" >&2
			systemctl restart lb.service || echo "lb: it does not start: journalctl -u lb" >&2
		else
			echo "lb: the old version goes on. When the file is right: systemctl restart lb" >&2
		fi
		;;
	esac
}
