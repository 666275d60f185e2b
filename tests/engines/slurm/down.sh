#!/bin/bash
# Ends the cluster that up.sh started in FOLDER: down.sh FOLDER. Its jobs first, so that none outlives the daemons.
folder=${1:?folder}
export SLURM_CONF=$folder/etc/slurm.conf
scancel --state=PENDING -u root 2> /dev/null
scancel -u root 2> /dev/null
for _ in $(seq 100); do
  [ -z "$(squeue -h -t R,CG 2> /dev/null)" ] && break
  sleep 0.1
done
pids=
for file in "$folder"/run/slurmd-*.pid "$folder"/run/slurmctld.pid "$folder"/run/munged.pid; do
  [ -f "$file" ] && pids="$pids $(cat "$file")"
done
# shellcheck disable=SC2086  # several pids
kill $pids 2> /dev/null
for _ in $(seq 100); do
  alive=
  for pid in $pids; do
    [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" && alive=1
  done
  [ -z "$alive" ] && exit 0
  sleep 0.1
done
# shellcheck disable=SC2086
kill -9 $pids 2> /dev/null
true
