#!/bin/sh
# Prints the licences of all that is linked into a binary of lb, as they ask for.
#
#   deploy/package/notices.sh BINARY
set -eu
print() { # name, directory
	found=
	for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/NOTICE*; do
		[ -f "$file" ] || continue
		found=yes
		echo "==== $1: $(basename "$file")"
		echo
		cat "$file"
		echo
	done
	[ -n "$found" ] || { echo "$1 has no licence in $2" >&2; exit 1; }
}
echo "lb contains the following programs of others, under the licences below."
echo
print "Go" "$(go env GOROOT)"
go version -m "$1" | awk '$1 == "dep" { print $2 }' | while read -r module; do
	print "$module" "$(go list -m -f '{{.Dir}}' "$module")"
done
