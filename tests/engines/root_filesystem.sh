#!/bin/bash
# Writes a small root filesystem to standard output as a tar archive: busybox, and this machine's /usr/bin/python3 with
# the libraries it needs. Enough for the test server and the runner; no network, no debootstrap.
set -euo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{usr/bin,usr/lib,usr/lib64,etc,tmp,root,proc,sys,dev,run}
chmod 1777 "$root/tmp"
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
cp /bin/busybox "$root/usr/bin/busybox"
for applet in sh sleep cat ls env id touch mkdir rm kill setsid; do ln -s busybox "$root/usr/bin/$applet"; done

python=$(readlink -f /usr/bin/python3)
version=$(basename "$python")
cp "$python" "$root/usr/bin/$version"
ln -s "$version" "$root/usr/bin/python3"
mkdir -p "$root/usr/lib/$version"
tar -C "/usr/lib/$version" --exclude=__pycache__ --exclude=test --exclude=idlelib --exclude='config-*' -cf - . |
  tar -C "$root/usr/lib/$version" -xf -

ldd "$python" "/usr/lib/$version"/lib-dynload/*.so 2> /dev/null |
  grep -oE '/[^ ]+\.so[^ ]*' | grep -v "^/usr/lib/$version" | sort -u |
  while read -r library; do
    target=$root$library
    mkdir -p "$(dirname "$target")"
    [ -e "$target" ] || cp -L "$library" "$target"
  done
echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
tar -C "$root" -cf - .
