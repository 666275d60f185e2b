#!/bin/bash
# Ends the engine that docker_up.sh started: docker_down.sh FOLDER. Its data stay in the folder.
set -euo pipefail
pid=$(cat "${1:?folder}/dockerd.pid")
kill "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
