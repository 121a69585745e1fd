#!/bin/sh
# Makes lb_VERSION_SYSTEM_ARCH.tar.gz for Linux and macOS, and SHA256SUMS of all that is in the directory, packages
# included. Like those, the same source gives the same bytes.
#
#   deploy/package/release.sh [SYSTEM/ARCH...]        VERSION, SOURCE_DATE_EPOCH and OUT (dist) may be set
set -eu
cd "$(dirname "$0")/../.."
: "${VERSION:=$(git describe --tags --always --dirty)}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
: "${OUT:=dist}"
export SOURCE_DATE_EPOCH
[ $# -gt 0 ] || set -- linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022

compile() { # where to; GOOS and GOARCH are set
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$1" ./cmd/lb
}
GOOS="" GOARCH="" compile "$stage/host"
for target; do
	system=${target%/*} arch=${target#*/} name=lb_${VERSION}_${target%/*}_${target#*/}
	mkdir -p "$stage/$name/man" "$stage/$name/completion"
	GOOS=$system GOARCH=$arch compile "$stage/$name/lb"
	"$stage/host" man lb.1 >"$stage/$name/man/lb.1"
	"$stage/host" man lb-config.5 >"$stage/$name/man/lb-config.5"
	for shell in bash zsh fish; do "$stage/host" completion $shell >"$stage/$name/completion/lb.$shell"; done
	deploy/package/notices.sh "$stage/$name/lb" >"$stage/$name/NOTICES"
	cp LICENSE README.md CHANGELOG.md config.toml "$stage/$name/"
	cp -r docs "$stage/$name/docs"
	mkdir "$stage/$name/deploy"
	cp -r deploy/README.md deploy/cloud-init deploy/systemd deploy/logrotate deploy/pm2 deploy/prometheus deploy/grafana "$stage/$name/deploy/"
	find "$stage/$name" '(' -name '*_test.go' -o -name test.sh ')' -delete
	chmod -R u=rwX,go=rX "$stage/$name"
	tar -C "$stage" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=root:0 --group=root:0 -cf "$stage/$name.tar" "$name"
	gzip -9nc "$stage/$name.tar" >"$OUT/$name.tar.gz"
	rm -rf "${stage:?}/$name" "$stage/$name.tar"
	echo "$OUT/$name.tar.gz"
done
cd "$OUT"
rm -f SHA256SUMS
find . -maxdepth 1 -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum >"$stage/sums"
mv "$stage/sums" SHA256SUMS
