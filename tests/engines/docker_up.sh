#!/bin/bash
# Starts a Docker Engine of its own for the tests: docker_up.sh FOLDER   (root, Debian; needs no registry)
#
# Everything lives below FOLDER: socket, data, log and pid file; nothing listens on the network. Prints the line
# `export DOCKER_HOST=...` for the shell. docker_down.sh FOLDER ends it. The image is made of this machine's own Python.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"  # dockerd and iptables are there
folder=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
image=nv-eval-test:1

if ! command -v dockerd > /dev/null || [ ! -x /bin/busybox ] || [ ! -x /usr/bin/python3 ]; then
  apt-get update -qq > "$folder/apt.log" 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    docker.io iptables busybox-static python3 >> "$folder/apt.log" 2>&1
fi

# `--gpus` is refused unless a hook of this name exists; one that does nothing lets the tests ask for GPUs.
mkdir -p "$folder/bin"
printf '#!/bin/sh\nexec cat > /dev/null\n' > "$folder/bin/nvidia-container-runtime-hook"
chmod +x "$folder/bin/nvidia-container-runtime-hook"

if ! docker --host "unix://$folder/docker.sock" version > /dev/null 2>&1; then
  PATH="$folder/bin:$PATH" setsid dockerd \
    --host "unix://$folder/docker.sock" --pidfile "$folder/dockerd.pid" \
    --data-root "$folder/data" --exec-root "$folder/exec" \
    --exec-opt native.cgroupdriver=cgroupfs --default-ulimit nofile=16384:16384 \
    > "$folder/dockerd.log" 2>&1 < /dev/null &
  for _ in $(seq 300); do
    docker --host "unix://$folder/docker.sock" version > /dev/null 2>&1 && break
    sleep 0.1
  done
fi

export DOCKER_HOST=unix://$folder/docker.sock
docker image inspect "$image" > /dev/null 2>&1 || "$here/root_filesystem.sh" | docker import - "$image" > /dev/null
echo "export DOCKER_HOST=$DOCKER_HOST"
