#!/bin/sh
# Makes lb_VERSION_ARCH.deb and lb-VERSION.ARCH.rpm, for amd64 and arm64 unless said otherwise. The same source gives the
# same bytes, whoever makes them and when.
#
#   deploy/package/build.sh [ARCH...]        VERSION, SOURCE_DATE_EPOCH and OUT (dist) may be set
set -eu
cd "$(dirname "$0")/../.."
here=deploy/package
: "${VERSION:=$(git describe --tags --always --dirty)}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
: "${OUT:=dist}"
PACKAGE_VERSION=$($here/version.sh "$VERSION" "$SOURCE_DATE_EPOCH")
export SOURCE_DATE_EPOCH PACKAGE_VERSION ARCH
[ $# -gt 0 ] || set -- amd64 arm64
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022

compile() { # where to; GOARCH is set
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$1" ./cmd/lb
}
put() { install -D -m "$1" "$2" "$stage/$3"; }

GOARCH="" compile "$stage/host"
"$stage/host" man lb.1 | gzip -9n >"$stage/lb.1.gz"
"$stage/host" man lb-config.5 | gzip -9n >"$stage/lb-config.5.gz"
for shell in bash zsh fish; do "$stage/host" completion $shell >"$stage/lb.$shell"; done
"$stage/host" check $here/config.toml
gzip -9nc CHANGELOG.md >"$stage/changelog.gz"
$here/notices.sh "$stage/host" | gzip -9n >"$stage/NOTICES.gz"
put 644 $here/copyright copyright
put 644 $here/config.toml config.toml
put 644 deploy/logrotate/lb logrotate
put 644 deploy/systemd/lb.sysusers sysusers
for unit in deploy/systemd/lb.service deploy/systemd/lb.socket; do
	if [ -e $unit ]; then put 644 $unit "units/${unit##*/}"; fi
done
for file in README.md config.toml docs/*.md deploy/README.md deploy/cloud-init/*.yaml deploy/pm2/*.js deploy/prometheus/*.yml deploy/grafana/*.json; do
	put 644 "$file" "doc/$file"
done
mkdir "$stage/scripts"
for of in deb rpm; do
	for script in "$here/$of"/*; do
		# What both have in common is one file.
		sed -e '/^# shellcheck/d' -e "/^\. common\.sh\$/{r $here/common.sh" -e 'd}' "$script" >"$stage/scripts/$of.$(basename "$script")"
	done
done
for ARCH; do
	GOARCH=$ARCH compile "$stage/lb"
	find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	cp $here/nfpm.yaml "$stage/nfpm.yaml"
	for of in deb rpm; do
		case $of.$ARCH in
		deb.*) file=lb_${PACKAGE_VERSION}-1_$ARCH.deb ;;
		rpm.amd64) file=lb-$PACKAGE_VERSION-1.x86_64.rpm ;;
		rpm.arm64) file=lb-$PACKAGE_VERSION-1.aarch64.rpm ;;
		*) file=lb-$PACKAGE_VERSION-1.$ARCH.rpm ;;
		esac
		nfpm=$(go tool -n -modfile=tools/nfpm/go.mod nfpm)
		(cd "$stage" && "$nfpm" package --config nfpm.yaml --packager $of --target "$OUT/$file" >nfpm.log 2>&1) ||
			{ cat "$stage/nfpm.log" >&2; exit 1; }
		echo "$OUT/$file"
	done
done
