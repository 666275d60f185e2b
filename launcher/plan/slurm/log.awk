# Output of a step on its way to its log: secrets replaced, the runner's events kept in a small file of their own, packed
# results left out. Values of the variables named in NV_EVAL_SECRETS, separated by spaces, are secrets.

BEGIN {
  names = split(ENVIRON["NV_EVAL_SECRETS"] " NV_EVAL_API_KEY VLLM_API_KEY LLAMA_API_KEY", name, " ")
  for (i = 1; i <= names; i++) {
    parts = split(ENVIRON[name[i]], part, "\n")
    for (j = 1; j <= parts; j++) if (length(part[j]) >= 6) secret[++secrets] = part[j]
  }
  printf "" >> log_file
}

function clean(text,    i, at, done) {
  for (i = 1; i <= secrets; i++) {
    done = ""
    while (at = index(text, secret[i])) {
      done = done substr(text, 1, at - 1) "***"
      text = substr(text, at + length(secret[i]))
    }
    text = done text
  }
  return text
}

function tell() {
  printf "%s%s%s", phase, progress, end > events
  close(events)
}

/^@nv-eval-results-begin / { packed = 1 }
/^@nv-eval-results-end/ { packed = 0; next }
packed { next }
events != "" && /^@nv-eval \{"event": "phase"/ { phase = clean($0) "\n"; tell() }
events != "" && /^@nv-eval \{"event": "progress"/ { progress = clean($0) "\n"; tell(); next }
events != "" && /^@nv-eval \{"event": "end"/ { end = clean($0) "\n"; tell() }
/^srun: .*(Terminating StepId|Job step aborted|forcing job termination|task [0-9,-]+: (Exited|Terminated|Killed))/ ||
/^slurmstepd[^ ]*: error: \*\*\* STEP / {
  print > "/dev/stderr"  # how a step ended is in the record; the log is the program's own
  next
}
{ print clean($0) >> log_file; fflush(log_file) }
