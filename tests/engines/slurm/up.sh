#!/bin/bash
# Starts a Slurm cluster of its own for the tests: up.sh FOLDER [NODES] [GPUS]   (root, Debian)
#
# Four nodes with eight fake GPUs each, and a small plugin with the options of Pyxis, all on loopback of this machine;
# everything lives below FOLDER. Prints the line `export SLURM_CONF=...` for the shell. down.sh FOLDER ends it.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
folder=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)
nodes=${2:-4}
gpus=${3:-8}
controller_port=${SLURM_TEST_PORT:-16817}
host=$(hostname -s)

here=$(dirname "$(readlink -f "$0")")
packages=
command -v gcc > /dev/null || packages="gcc libc6-dev"
[ -f /usr/include/slurm/spank.h ] || packages="$packages libslurm-dev"
command -v slurmctld > /dev/null || packages="$packages slurmctld slurmd slurm-client munge"
[ -x /usr/sbin/sshd ] || packages="$packages openssh-server openssh-client"
if [ -n "$packages" ]; then
  apt-get update -qq > "$folder/apt.log" 2>&1
  # shellcheck disable=SC2086  # several words
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >> "$folder/apt.log" 2>&1
fi

mkdir -p "$folder"/{etc,log,state,spool,run,dev}
for number in $(seq 0 $((gpus - 1))); do
  [ -e "$folder/dev/nvidia$number" ] || mknod -m 666 "$folder/dev/nvidia$number" c 195 "$number"
done

# Control groups of version 1 take devices and memory away from jobs that did not ask for them.
if grep -qs '^cgroup /sys/fs/cgroup/devices' /proc/mounts; then
  track=proctrack/cgroup task=task/cgroup gather=jobacct_gather/cgroup
else
  track=proctrack/linuxproc task=task/none gather=jobacct_gather/linux
fi
cat > "$folder/etc/cgroup.conf" <<CONF
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=yes
ConstrainCores=no
ConstrainRAMSpace=yes
ConstrainDevices=yes
CONF
cat > "$folder/etc/slurm.conf" <<CONF
ClusterName=evaltest
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
ProctrackType=$track
TaskPlugin=$task
JobAcctGatherType=$gather
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,requeue_setup_env_fail
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=3
UnkillableStepTimeout=20
InactiveLimit=0
MinJobAge=60
GresTypes=gpu
DefMemPerCPU=100
CONF
gcc -shared -fPIC -O1 -w -o "$folder/etc/minipyxis.so" "$here/minipyxis.c" -lslurm
echo "required $folder/etc/minipyxis.so images=$folder/images" > "$folder/etc/plugstack.conf"
echo "AutoDetect=off" > "$folder/etc/gres.conf"
for number in $(seq 1 "$nodes"); do
  echo "NodeName=n$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((controller_port + 200 + number))" \
    "CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000" \
    "Gres=gpu:h100:$gpus State=UNKNOWN" >> "$folder/etc/slurm.conf"
  echo "NodeName=n$number Name=gpu Type=h100 File=$folder/dev/nvidia[0-$((gpus - 1))]" >> "$folder/etc/gres.conf"
done
echo "PartitionName=batch Nodes=n[1-$nodes] Default=YES MaxTime=60 State=UP" >> "$folder/etc/slurm.conf"
echo "PartitionName=urgent Nodes=n[1-$nodes] MaxTime=60 PriorityTier=10 State=UP" >> "$folder/etc/slurm.conf"
echo "PartitionName=short Nodes=n[1-$nodes] MaxTime=1 State=UP" >> "$folder/etc/slurm.conf"

export SLURM_CONF=$folder/etc/slurm.conf
if [ ! -f "$folder/etc/munge.key" ]; then
  dd if=/dev/urandom of="$folder/etc/munge.key" bs=1024 count=1 status=none
  chmod 400 "$folder/etc/munge.key"
fi
munged --socket="$folder/run/munge.sock" --key-file="$folder/etc/munge.key" --pid-file="$folder/run/munged.pid" \
  --log-file="$folder/log/munged.log" --seed-file="$folder/run/munge.seed" --num-threads=4 --force > /dev/null 2>&1
slurmctld -c > /dev/null 2>&1
for number in $(seq 1 "$nodes"); do slurmd -N "n$number" > /dev/null 2>&1; done
for _ in $(seq 200); do
  if [ "$(sinfo -h -N -p batch -t idle -o %N 2> /dev/null | wc -l)" = "$nodes" ]; then
    echo "export SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  sleep 0.1
done
tail -n 20 "$folder/log/slurmctld.log" >&2
exit 1
