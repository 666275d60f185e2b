"""What runs on the cluster, as scripts of /bin/sh. `$1` is the invocation's folder unless a comment says otherwise."""

from __future__ import annotations

HOME = 'printf "%s" "$HOME"\n'

MAKE = """\
umask 077
mkdir -p -- "$1" && cd -- "$1" && mkdir -p jobs tasks && tar -xf -
"""
"""Folders of an invocation; its input is an archive of what all jobs share."""

SUBMIT = """\
trap '' HUP
umask 077
folder=$1 name=$2 nonce=$3 key=$4
shift 4
mkdir -p -- "$folder/jobs/$name" "$folder/tasks/$key/output" "$folder/tasks/$key/work" || exit 1
cd -- "$folder/jobs/$name" || exit 1
if [ "$(cut -d' ' -f1 id 2> /dev/null)" = "$nonce" ]; then cut -d' ' -f2 id; cat > /dev/null; exit 0; fi
answer=
if [ "$(cat asked 2> /dev/null)" = "$nonce" ]; then answer=$(squeue -h --me -n "$name" -o %i) || exit 1; fi
if [ -z "$answer" ]; then
  rm -f id ended address events spent server.exit key auxiliary watch.json *.log
  tar -xf - || exit 1
  printf '%s' "$nonce" > asked
  answer=$(sbatch --parsable "$@" batch.sh 2> refused) || {
    cat refused >&2
    grep -q 'timed out' refused || rm -f *.secrets
    exit 1
  }
else
  cat > /dev/null
fi
printf '%s %s\\n' "$nonce" "${answer%%;*}" > id.part && mv id.part id
printf '%s\\n' "${answer%%;*}"
"""
"""$2 name, $3 nonce of this wish, $4 task, then options of sbatch; its input is an archive of the job's files.

A wish is fulfilled once: whoever lost the answer asks again with the same nonce. sbatch that timed out may have
submitted the job: before it is asked again, squeue is.
"""

KEY = """\
cat -- "$1/jobs/$2/key" 2> /dev/null || :
"""
"""$2: name of the job. Nothing where it has made no key."""

SUBMIT_ARRAY = """\
trap '' HUP
umask 077
folder=$1 nonce=$2
shift 2
cd -- "$folder" || exit 1
if [ -s "arrays/$nonce/id" ]; then cat "arrays/$nonce/id"; cat > /dev/null; exit 0; fi
answer=
if [ -e "arrays/$nonce/asked" ]; then
  answer=$(squeue -h --me -n "$(cat "arrays/$nonce/asked")" -o %F) || exit 1
  answer=$(printf '%s' "$answer" | tail -n 1)
fi
if [ -n "$answer" ]; then
  cat > /dev/null
  cd "arrays/$nonce" || exit 1
else
  tar -xf - || exit 1
  cd "arrays/$nonce" || exit 1
  number=0
  while read -r name key; do
    mkdir -p "../../tasks/$key/output" "../../tasks/$key/work"
    (cd "../../jobs/$name" && rm -f id ended address events spent server.exit *.log) || exit 1
    ln -s "../../arrays/$nonce/$number.log" "../../jobs/$name/batch.log"
    number=$((number + 1))
  done < names
  for word in "$@"; do
    case $word in --job-name=*) printf '%s' "${word#--job-name=}" > asked ;; esac
  done
  answer=$(sbatch --parsable "$@" batch.sh 2> refused) || {
    cat refused >&2
    grep -q 'timed out' refused || while read -r name key; do rm -f "../../jobs/$name/"*.secrets; done < names
    exit 1
  }
fi
number=0
while read -r name key; do
  printf '%s %s_%s\n' "$nonce" "${answer%%;*}" "$number" > "../../jobs/$name/id.part"
  mv "../../jobs/$name/id.part" "../../jobs/$name/id"
  number=$((number + 1))
done < names
printf '%s\n' "${answer%%;*}" > id.part && mv id.part id && cat id
"""
"""The same for tasks whose requests are equal. $2 nonce, then options of sbatch; its input has the files of all jobs,
and `arrays/NONCE/names` with a job and its task in each line, in the order of the elements."""

RECORDS = "\n\x01records\n"
LOOK = """\
export SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0
folder=$1
shift
"$@" || exit 1
printf '\\n\\001records\\n'
cd -- "$folder" 2> /dev/null || exit 0
set -- -name id -o -name ended -o -name address -o -name events -o -name server.exit -o -name spent
find jobs -mindepth 2 -maxdepth 2 \\( "$@" \\) -exec grep -saHZ '' {} + || :
[ ! -d arrays ] || find arrays -mindepth 2 -maxdepth 2 -name names -exec grep -saHZ '' {} + || :
"""
"""$2... is squeue with its options. After what it prints come the records of the jobs: path, NUL, line."""

CANCEL = """\
folder=$1
listed=$(squeue -h -r --me -o '%i %j') || exit 1
wanted=$(cat)
found=$(printf '%s\\n' "$wanted" '' "$listed" | awk '
  NF == 0 { listed = 1; next }
  !listed { wanted[$1]; next }
  { number = $1; sub(/^[^ ]+ /, ""); if ($0 in wanted) print number }')
while read -r name element; do
  if [ -z "$element" ] && read -r nonce label 2> /dev/null < "$folder/jobs/$name/id"; then element=$label; fi
  case $element in *_*) found="$found $element" ;; esac
  case $name in
    array-*)
      nonce=${name#array-}
      while read -r job key; do wanted="$wanted
$job"; done 2> /dev/null < "$folder/arrays/${nonce%%-*}/names" ;;
  esac
done << END
$wanted
END
[ -z "$found" ] || printf '%s\\n' $found | xargs scancel || exit 1
cd -- "$folder" 2> /dev/null || exit 0
printf '%s\\n' "$wanted" | sed 's|\\([^ ]*\\).*|jobs/\\1/server.secrets jobs/\\1/job.secrets jobs/\\1/key|' |
  xargs rm -f
"""
"""Its input has a line for each batch job, or whole array: its name, and what Slurm calls it if it is known to be an
element of an array."""

PAGE = """\
cd -- "$1/jobs/$2" 2> /dev/null || exit 0
[ -f "$3" ] || exit 0
tail -c "+$4" -- "$3" | head -c "$5"
"""
"""$3: log, $4: first byte counted from 1, $5: most bytes."""

TAIL = """\
cd -- "$1/jobs/$2" 2> /dev/null || exit 0
if [ -s "$3" ]; then tail -n "$4" -- "$3"; else tail -n "$4" -- batch.log 2> /dev/null; fi || :
"""
"""$3: log, $4: lines. Where the program never said anything, what Slurm said of its job."""

FETCH = """\
cd -- "$1/tasks/$2/output" 2> /dev/null || exit 0
tar -cf - .
"""
"""$2: task. Nothing where the job never wrote anything."""

JOBS = """\
export SLURM_TIME_FORMAT=%s
date +%s
"$@" || exit 1
"""

FOLDERS = """\
cd -- "$1" 2> /dev/null || exit 0
for folder in */; do
  [ -d "$folder/jobs" ] && printf '%s %s\\n' "$(stat -c %Y "$folder")" "${folder%/}"
done
exit 0
"""
"""$1: the folder of all invocations. Time of the last change, and name, of each."""

REMOVE_FOLDER = """\
cd -- "$1" 2> /dev/null || exit 0
rm -rf -- "./$2"
"""

SACCT = """\
command -v sacct > /dev/null || exit 0
sacct -X -n -P -j "$1" -o JobID,State,ExitCode 2> /dev/null
exit 0
"""
"""$1: job ids. Empty where there is no accounting."""

EXAMINE = """\
folder=$1
shift
for command in sbatch squeue scancel scontrol srun; do
  command -v "$command" > /dev/null || printf 'missing %s\\n' "$command"
done
printf 'version %s\\n' "$(squeue --version 2>&1 | head -n 1)"
sinfo -h -o 'partition %R|%l|%a|%G|%T' 2>&1 || printf 'unreachable\\n'
while [ ! -e "$folder" ] && [ "$folder" != / ] && [ "$folder" != . ]; do folder=$(dirname -- "$folder"); done
if [ -d "$folder" ] && [ -w "$folder" ]; then printf 'folder yes\\n'; else printf 'folder no %s\\n' "$folder"; fi
printf 'filesystem %s\\n' "$(stat -f -c %T -- "$folder")"
srun --help 2> /dev/null | grep -q container-image && printf 'pyxis\\n'
command -v apptainer > /dev/null && printf 'apptainer\\n'
command -v "$1" > /dev/null && printf 'python\\n'
exit 0
"""
"""$2: Python of the nodes."""

TEST_ONLY = """\
printf '#!/bin/sh\\n' | sbatch --test-only "$@" 2>&1
"""
"""$1...: options of sbatch."""
