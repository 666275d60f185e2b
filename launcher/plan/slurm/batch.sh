# Everything below is the same in every job. The job's folder is the working directory; all nodes see it.
set -u
umask 077
exec < /dev/null
rm -f ended address server.exit
label=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
label=${label:-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
head_node=${SLURMD_NODENAME:-$(hostname)}
nodes=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-$head_node}")
cpus=${SLURM_CPUS_ON_NODE:-1}
spent=$(cat spent 2> /dev/null) || spent=0
servers=() client= balancer= asked= host= port= threads=$cpus
python=${python/#\~/$HOME}

say() { printf 'nv-eval: %s\n' "$*"; }

# How the other nodes reach a node.
address_of() {
  local found
  found=$(scontrol show node --oneliner "$1" 2> /dev/null | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
  getent ahostsv4 "${found:-$1}" 2> /dev/null | { read -r ip _ && printf '%s' "$ip"; } || printf '%s' "${found:-$1}"
}

# A port that no other job of ours has on this node: job ids differ, and a lock is held as long as the job lives.
take_port() {
  local number=$((20000 + (SLURM_JOB_ID * 8 + $1) % 12000)) tries=0 lock
  local locks=/tmp/nv-eval-ports-$(id -u)
  mkdir -p "$locks"
  while [ $tries -lt 400 ]; do
    exec {lock}> "$locks/$number"
    if flock -n "$lock" && ! (exec 3<> "/dev/tcp/127.0.0.1/$number") 2> /dev/null; then
      taken=$number
      return
    fi
    exec {lock}>&-
    number=$((20000 + (number - 20000 + 97) % 12000)) tries=$((tries + 1))
  done
  finish no_port 1
}

# The record of the end: Slurm forgets a job minutes after it has ended.
finish() {
  trap '' TERM USR1 USR2
  stop_all
  rm -f server.secrets job.secrets key
  printf '%s' $((spent + SECONDS)) > spent
  printf 'job=%s\nwhy=%s\nserver=%s\nclient=%s\nnode=%s\nat=%s\n' \
    "$label" "$1" "${server_code:-}" "${client_code:-}" "$head_node" "$(date +%s)" > ended.part
  mv ended.part ended
  exit "$2"
}

stop() {
  local pid
  for pid in "$@"; do kill -TERM "$pid" 2> /dev/null; done
  for pid in "$@"; do wait "$pid" 2> /dev/null; done
}

# The evaluation first: it would take the end of its server for a failure.
stop_all() {
  [ -z "$client" ] || stop "$client"
  [ -z "$balancer" ] || stop "$balancer"
  [ ${#servers[@]} = 0 ] || stop "${servers[@]}"
  [ -z "${clock:-}" ] || kill "$clock" 2> /dev/null
}

# The time limit is near: the same job goes on in a further one, as long as the task has time left.
go_on() {
  trap '' USR1 USR2
  say "the time limit of this job is near, $((spent + SECONDS)) s of $total_seconds s are spent"
  stop_all
  printf '%s' $((spent + SECONDS)) > spent
  if [ $((spent + SECONDS + 30)) -ge "$total_seconds" ]; then finish spent 0; fi
  scontrol requeue "$SLURM_JOB_ID" || finish timeout 1
  sleep 300 & wait $!
  finish timeout 1
}

# Slurm ends the job; its own message, which comes with the signal, says why.
ended_by_slurm() {
  trap '' TERM USR1 USR2
  local why=cancelled
  stop_all
  printf '%s' $((spent + SECONDS)) > spent
  case $(grep -a "JOB $SLURM_JOB_ID ON" batch.log | tail -n 1) in
    *"TIME LIMIT"*) why=timeout ;;
    *PREEMPTION* | *REQUEUE* | *"NODE FAILURE"*) exit 0 ;;  # it may start again, and needs its secrets then
  esac
  finish $why 1
}

trap go_on USR1
trap 'asked=spent' USR2
trap ended_by_slurm TERM
say "job $label on ${SLURM_JOB_NODELIST:-$head_node}, start $((restarts + 1))"
if [ "$spent" -ge "$total_seconds" ]; then finish spent 0; fi
( while sleep 5; do
    printf '%s' $((spent + SECONDS)) > spent.part && mv spent.part spent
    if [ $((spent + SECONDS)) -ge "$total_seconds" ]; then kill -USR2 $$; fi
  done ) > /dev/null 2>&1 &
clock=$!

# mawk reads whole blocks from a pipe unless it is told not to; others do not know the option.
case $(awk -W version 2>&1) in mawk*) awk='awk -W interactive' ;; *) awk=awk ;; esac

# One step, whose output goes to a log without secrets: those are in the environment of the step and its filter alone.
step() { # log, events, words...
  local log=$1 events=$2 out filter pid code left=100
  shift 2
  exec {out}> >(trap '' TERM INT; exec $awk -v log_file="$log" -v events="$events" -f ../../log.awk)
  filter=$!
  "$@" >&$out 2>&1 {out}>&- &
  pid=$!
  exec {out}>&-
  trap 'kill -TERM $pid 2> /dev/null' TERM
  wait $pid
  code=$?
  while alive $pid; do wait $pid; code=$?; done
  while alive $filter && [ $((left -= 1)) -gt 0 ]; do sleep 0.05; done
  exit $code
}

alive() { kill -0 "$1" 2> /dev/null; }

# What the plan could not know. A leading ~ is the home on the cluster.
fill() {
  local word=$1
  if [[ $word = "~/"* ]]; then word=$HOME/${word#"~/"}; fi
  word=${word//\{python\}/$python} word=${word//\{host\}/$host} word=${word//\{port\}/$port}
  word=${word//\{threads\}/$threads} word=${word//\{pwd\}/$PWD}
  filled=${word//\{home\}/$HOME}
}

fill_all() { # words...: into the array all
  local word
  all=()
  for word in "$@"; do
    fill "$word"
    all+=("$filled")
  done
}

# Where an image sets a variable that we set, too, its value would win: Pyxis is told which are ours, if it can be.
keep_env() { # variables...: into the array kept
  local names=$* all_names
  kept=()
  if [ "$runtime" = pyxis ] && [ -n "${names// /}" ] && srun --help 2> /dev/null | grep -q -- --container-env; then
    all_names=($names)
    kept=("--container-env=$(IFS=,; printf '%s' "${all_names[*]}")")
  fi
}

start_server() { # number, place among those of its node, words of srun...
  local number=$1 place=$2 word all
  shift 2
  (
    for word in ${server_env[@]+"${server_env[@]}"}; do
      fill "${word#*=}"
      export "${word%%=*}=$filled"
    done
    if [ -s server.secrets ]; then . ./server.secrets; fi
    if [ -n "$key_variable" ]; then export "$key_variable=$key"; fi
    export HEAD_ADDRESS=$head_address RENDEZVOUS_PORT=$rendezvous FIRST_GPU=$((place * instance_gpus + 1))
    export LAST_GPU=$((place * instance_gpus + instance_gpus))
    keep_env ${server_env[@]+"${server_env[@]%%=*}"} "${NV_EVAL_SECRETS:-}" "$key_variable"
    fill_all ${kept[@]+"${kept[@]}"} ${server_step[@]+"${server_step[@]}"} ${server_wrapper[@]+"${server_wrapper[@]}"} "${server[@]}"
    step "endpoint${number#0}.log" "" srun --overlap --mem=0 --input=none --kill-on-bad-exit=1 --job-name=server \
      --export=ALL --cpus-per-task="$cpus" "$@" "${all[@]}"
  ) &
  servers+=($!)
}

start_servers() {
  local number=0 per_node=$((instances / node_count)) node place
  threads=$((per_node > 1 && cpus / per_node > 0 ? cpus / per_node : cpus))
  backends=()
  if [ "$instances" = 1 ]; then
    take_port 1
    port=$taken
    start_server 0 0 --nodes="$node_count" --ntasks="$node_count" --ntasks-per-node=1
    return
  fi
  for node in $nodes; do
    host=$(address_of "$node")
    for place in $(seq 0 $((per_node - 1))); do
      take_port $((number + 2))
      port=$taken
      backends+=("http://$host:$port")
      start_server $number "$place" --nodes=1 --ntasks=1 --nodelist="$node"
      number=$((number + 1))
    done
  done
  host=$public_host
  take_port 1
  port=$taken
  "$python" ../../balance.py "$host" "$port" "$health_path" "${backends[@]}" > balancer.log 2>&1 &
  balancer=$!
}

# Where an auxiliary endpoint is that a batch job of its own holds, and its key; other nodes may see its files later.
find_auxiliary() {
  local name variable job left=100 edits=()
  while IFS=: read -r name variable job; do
    while [ ! -s "../$job/address" ] && [ $((left -= 1)) -gt 0 ]; do sleep 1; done
    if [ -s "../$job/address" ]; then edits+=(-e "s#http://$name.auxiliary.invalid#$(cat "../$job/address")#g"); fi
    if [ -s "../$job/key" ]; then
      export "$variable=$(cat "../$job/key")"
      export NV_EVAL_SECRETS="${NV_EVAL_SECRETS:-} $variable"
    fi
  done < auxiliary
  sed ${edits[@]+"${edits[@]}"} -i job.run.json
}

start_client() { # document of its job
  sed "s#http://endpoint.invalid#$url#g" "$1" > job.run.json
  (
    if [ -s job.secrets ]; then . ./job.secrets; fi
    if [ -s auxiliary ]; then find_auxiliary; fi
    if [ -n "$key" ]; then export NV_EVAL_API_KEY=$key; fi
    export CUDA_VISIBLE_DEVICES=
    unset SLURM_GPUS_PER_NODE SLURM_GPUS
    kept=()
    if [ ${#client_step[@]} != 0 ]; then keep_env "${NV_EVAL_SECRETS:-}" ${key:+NV_EVAL_API_KEY}; fi
    fill_all ${kept[@]+"${kept[@]}"} ${client_step[@]+"${client_step[@]}"} "$client_python"
    step job.log events srun --overlap --mem=0 --input=none --nodes=1 --ntasks=1 --nodelist="$head_node" \
      --gres=none --export=ALL --cpus-per-task="$cpus" --job-name=evaluation "${all[@]}" ../../runner.py job.run.json
  ) &
  client=$!
}

# A Python that is not there: said before a model is loaded for it. In an image only its own step can find out.
need_python() {
  local needed=()
  if { [ "$kind" != endpoint ] || [ -s watch.json ]; } && [ ${#client_step[@]} = 0 ]; then
    fill "$client_python"
    needed+=("$filled")
  fi
  if [ "$kind" != job ] && [ "$instances" != 1 ]; then needed+=("$python"); fi
  for word in ${needed[@]+"${needed[@]}"}; do
    if ! command -v "$word" > /dev/null; then
      say "$head_node has no $word"
      finish no_python 1
    fi
  done
}

server_ended() {
  local pid
  for pid in ${servers[@]+"${servers[@]}"} $balancer; do
    if ! alive "$pid"; then
      wait "$pid"
      server_code=$?
      return 0
    fi
  done
  return 1
}

key=
need_python
head_address=$(address_of "$head_node")
if [ "$node_count" -gt 1 ]; then take_port 0; rendezvous=$taken; else rendezvous=0; fi
if [ "$kind" = together ]; then public_host=127.0.0.1; else public_host=$head_address; fi
host=$public_host
if [ "$kind" != job ]; then
  if [ -n "$key_variable" ]; then key=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n'); fi
  if [ "$kind" = endpoint ] && [ -n "$key" ]; then printf '%s' "$key" > key; fi
  start_servers
  url=http://$public_host:$port
  printf '%s' "$url" > address.part && mv address.part address
else
  url=$(cat url)
  if [ -s endpoint ] && [ -s "../$(cat endpoint)/key" ]; then key=$(cat "../$(cat endpoint)/key"); fi
fi
if [ "$kind" != endpoint ]; then start_client job.json; elif [ -s watch.json ]; then start_client watch.json; fi

while true; do
  if [ -n "$client" ] && ! alive "$client"; then
    wait "$client"
    client_code=$?
    client=
    if [ "$kind" != endpoint ]; then finish done "$client_code"; fi
    if [ "$client_code" != 0 ]; then finish unready "$client_code"; fi  # else it answers, and is kept
  fi
  if [ "$kind" != job ] && server_ended; then
    say "the server ended with code $server_code"
    printf '%s' "$server_code" > server.exit
    finish server "$((server_code ? server_code : 1))"
  fi
  if [ "$asked" = spent ]; then finish spent 0; fi
  sleep 0.5 &
  wait $!
done
