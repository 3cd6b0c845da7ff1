#!/usr/bin/env bash
# Builds the image for amd64 and arm64 and looks at what came out. It needs root,
# buildah and Go. Where the base image cannot be pulled, one with this machine's
# Go toolchain stands in for it.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly base=docker.io/library/golang:1.26 version=1.2.3 most=45000000
work=$(mktemp -d)
b() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
trap 'b rm --all >/dev/null; chmod -R u+w "$work"; rm -rf "$work"' EXIT
fail() {
	echo "image for $arch: $*" >&2
	exit 1
}

stand_in() {
	local container root
	container=$(b from scratch)
	root=$(b mount "$container")
	mkdir -p "$root"/{bin,tmp,root,go,usr/local,etc/ssl/certs}
	cp -L /bin/sh "$root/bin/sh"
	ldd /bin/sh | grep -o '/[^ ]*' | while read -r library; do
		install -D "$library" "$root$library"
	done
	cp -a "$(go env GOROOT)" "$root/usr/local/go"
	cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
	b config --env PATH=/usr/local/go/bin:/bin --env HOME=/root --env GOPATH=/go "$container"
	b commit --quiet --rm "$container" "$base"
}

b pull --quiet "$base" 2>/dev/null || stand_in
for arch in amd64 arm64; do
	image=localhost/hindsight:$arch
	# The caches of this machine's Go save downloads; without them it works as well.
	# Older versions of buildah do not know BUILDPLATFORM by themselves.
	b build --quiet --isolation chroot --pull-never --platform "linux/$arch" \
		--volume "$(go env GOMODCACHE):/go/pkg/mod" --volume "$(go env GOCACHE):/root/.cache/go-build" \
		--build-arg BUILDPLATFORM="linux/$(go env GOHOSTARCH)" --build-arg VERSION=$version \
		--tag "$image" . 2>&1 | grep -v 'build args were not consumed'

	settings=$(b inspect --type image --format '{{.OCIv1.Architecture}} {{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' "$image")
	[ "$settings" = "$arch 65532:65532 [/hindsight] [run]" ] || fail "its settings are $settings"

	container=$(b from --pull-never "$image" 2>/dev/null)
	root=$(b mount "$container")
	files=$(cd "$root" && find . -type f -size +0 | sort | xargs)
	[ "$files" = "./LICENSE ./NOTICE ./etc/ssl/certs/ca-certificates.crt ./hindsight" ] || fail "it holds $files"
	cmp -s LICENSE "$root/LICENSE" && cmp -s NOTICE "$root/NOTICE" || fail "its LICENSE or NOTICE is not that of the repository"
	size=$(du -sb "$root" | cut -f1)
	[ "$size" -le $most ] || fail "it has $size bytes, more than $most"
	settings=$(go version -m "$root/hindsight")
	for setting in "GOARCH=$arch" CGO_ENABLED=0 -trimpath=true; do
		grep -q -- "$setting" <<<"$settings" || fail "$setting is missing in $settings"
	done
	if [ "$arch" = "$(go env GOHOSTARCH)" ]; then
		said=$(b run --isolation chroot "$container" -- /hindsight version)
		[[ $said == "hindsight $version "* ]] || fail "it says $said"
		b run --isolation chroot "$container" -- /hindsight check >/dev/null || fail "it does not start"
	fi
	echo "image for $arch: $size bytes"
done
