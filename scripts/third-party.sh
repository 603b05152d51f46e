#!/bin/sh
# Writes THIRD_PARTY.md: the modules that are linked into the binary on any of its
# platforms, with the texts of their licences, from the module cache. With --check
# it changes nothing, and fails if the file is behind.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

case $* in
'' | --check) ;;
*) die "$* is not known: scripts/third-party.sh [--check]" ;;
esac
need_go
scratch_dir
cd "$root"

# texts TITLE FOLDER prints each licence, notice and patent grant that is in the folder.
texts() {
	for file in "$2"/*; do
		case $(basename "$file" | tr '[:lower:]' '[:upper:]') in
		LICEN[CS]E* | COPYING* | NOTICE* | PATENTS*) ;;
		*) continue ;;
		esac
		printf '\n## %s: %s\n\n' "$1" "$(basename "$file")"
		# Indented, so that Markdown leaves the text as it is.
		tr -d '\r' <"$file" | sed 's/[[:space:]]*$//; s/^\(.\)/    \1/'
	done
}

# folders MODULE PACKAGE prints both and what is between: a package that was copied
# from elsewhere has a licence of its own.
folders() {
	folder=$2
	while [ "$folder" != "$1" ]; do
		echo "$folder"
		folder=$(dirname "$folder")
	done
	echo "$1"
}

for arch in amd64 arm64 arm; do
	GOOS=linux GOARCH=$arch CGO_ENABLED=0 go list -deps -tags nethttpomithttp2 \
		-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}' .
done >"$work/all"
while read -r path version module package; do
	[ -n "$path" ] || continue
	folders "$module" "$package" | while read -r folder; do
		echo "$path${folder#"$module"} $version $folder"
	done
done <"$work/all" | sort -u >"$work/folders"
{
	echo '# What is linked in'
	echo
	echo 'The binary holds the Go modules below and the standard library. Their licences follow.'
	echo 'scripts/third-party.sh writes this page; do not edit it.'
	texts "Go standard library and runtime" "$(go env GOROOT)"
	while read -r path version folder; do
		texts "$path $version" "$folder"
	done <"$work/folders"
} >"$work/THIRD_PARTY.md"
# A module without a licence may not be linked in.
sort -u "$work/all" | while read -r path version _; do
	[ -z "$path" ] || grep -qiE "^## $path $version: (licen[cs]e|copying)" "$work/THIRD_PARTY.md" ||
		die "$path $version has no licence in the module cache"
done

if [ "$*" = --check ]; then
	diff -u THIRD_PARTY.md "$work/THIRD_PARTY.md" >&2 || die "THIRD_PARTY.md is behind: scripts/third-party.sh renews it"
else
	cp "$work/THIRD_PARTY.md" THIRD_PARTY.md
fi
