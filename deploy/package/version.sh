#!/bin/sh
# Prints the version of packages for what git describe says, so that dpkg and rpm order versions as git does: a release
# comes after its release candidates and before what follows it. Without a tag, the time of the commit orders.
#
#   deploy/package/version.sh DESCRIBED SECONDS
set -eu
described=$1
dirty=
case $described in *-dirty) dirty=+dirty described=${described%-dirty} ;; esac
case $described in
v[0-9]*) ;;
*)
	echo "0~git$(date -u -d "@$2" +%Y%m%d.%H%M%S).$described$dirty" | tr '-' '.'
	exit
	;;
esac
version=${described#v} since=
if echo "$version" | grep -Eq -e '-[0-9]+-g[0-9a-f]+$'; then # so many commits after the tag
	commit=${version##*-g}
	version=${version%-g*}
	since=+${version##*-}.g$commit
	version=${version%-*}
fi
echo "$version$since$dirty" | sed -e 's/-/~/' -e 's/-/./g'
