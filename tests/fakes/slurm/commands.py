"""sbatch, squeue, scancel and the others of a cluster that is a folder: `commands.py COMMAND FOLDER WORDS...`.

Standard library only, as each command is a process of its own. Every command first lets time pass: jobs whose turn
it is begin, end and write what they write. A job either runs its batch script as a process of this machine, under a
keeper of its own, or is simulated: then it leaves the records that the script would leave.
"""

import contextlib
import fcntl
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
ACTIVE = ("PENDING", "RUNNING", "COMPLETING")
KILL_WAIT = 3.0
"""Seconds between SIGTERM and SIGKILL."""
NODE = "fake1"


class Cluster:
    """The cluster of a folder. Within `with`, nobody else changes it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.jobs = []
        self._file = None

    def __enter__(self):
        self._file = (self.folder / "lock").open("a+")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            self.jobs = json.loads((self.folder / "jobs.json").read_text())
        self._let_time_pass(time.time())
        return self

    def __exit__(self, *_):
        part = self.folder / "jobs.part"
        part.write_text(json.dumps(self.jobs))
        part.replace(self.folder / "jobs.json")
        self._file.close()

    def submit(self, options, script):
        """A new job, or the elements of a job array. Returns its number.

        Clusters begin with different ones: a port follows from them, and what listens there later is not another's.
        """
        words = dict(option.lstrip("-").partition("=")[::2] for option in options)
        number = 1 + max((job["id"] for job in self.jobs), default=zlib.crc32(bytes(self.folder)) % 1000)
        last = int(words["array"].rpartition("-")[2]) if "array" in words else 0
        for index, (name, place) in enumerate(elements(words, last + 1)):
            output = words["output"].replace("%a", str(index)).replace("%%", "%")
            self.jobs.append(
                {
                    "id": number + index,
                    "array": number if "array" in words else None,
                    "index": index,
                    "label": f"{number}_{index}" if "array" in words else str(number),
                    "name": words["job-name"],
                    "element": name,
                    "place": str(place),
                    "comment": words.get("comment", ""),
                    "folder": words["chdir"],
                    "output": output,
                    "minutes": float(words.get("time", 60)),
                    "state": "PENDING",
                    "submitted": time.time(),
                    "asked": None,
                    "begun": None,
                    "ended": None,
                    "pid": None,
                }
            )
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        (scripts / str(number)).write_text(script)
        return number

    def shown(self):
        """Jobs that squeue still knows."""
        kept = self.config["min_job_age"]
        return [job for job in self.jobs if job["state"] in ACTIVE or time.time() - job["ended"] < kept]

    def cancel(self, job):
        """Ask for the end of a job."""
        if job["state"] in OVER:
            return
        job["asked"] = job["asked"] or time.time()
        if job["state"] == "PENDING":
            self._end(job, "CANCELLED", time.time())
        elif self.config["simulated"]:
            job["state"] = "COMPLETING"
        elif job["pid"] is not None:
            tell(job, f"*** JOB {job['label']} ON {NODE} CANCELLED AT {time.strftime('%Y-%m-%dT%H:%M:%S')} ***")
            job["state"] = "COMPLETING"  # its keeper sees it

    # --- time -------------------------------------------------------------------------------------------------------

    def _let_time_pass(self, now):
        for job in self.jobs:
            begins = job["submitted"] + self.config["waits"]
            if job["state"] == "PENDING" and now >= begins:
                job["state"], job["begun"] = "RUNNING", begins
                self._begin(job)
            if self.config["simulated"] and job["state"] in ("RUNNING", "COMPLETING") and job["comment"]:
                self._simulate(job, now)

    def _begin(self, job):
        if not self.config["simulated"]:
            job["begun"] = time.time()
            keeper = [sys.executable, "-S", "-E", __file__, "keep", str(self.folder), str(job["id"])]
            nothing = subprocess.DEVNULL
            process = subprocess.Popen(keeper, start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
            job["pid"] = process.pid
            return
        _, folder = element_of(job)
        for name in ("ended", "address", "server.exit"):
            (folder / name).unlink(missing_ok=True)
        tell(job, f"nv-eval: job {job['label']} on {NODE}, start 1")

    def _simulate(self, job, now):
        ends = job["begun"] + self.config["lasts"]
        asked = job["asked"]
        if asked is not None and asked < ends:
            if now >= asked + self.config["leaves"]:
                tell(job, f"slurmstepd: error: *** JOB {job['label']} ON {NODE} CANCELLED AT 2026-01-01T00:00:00 ***")
                self._record(job, "cancelled", "", "", asked)
                self._end(job, "CANCELLED", asked + self.config["leaves"])
            return
        kind = job["comment"].rpartition(":")[2]
        if kind != "job" and now >= job["begun"] + self.config["boots"]:
            put(element_of(job)[1] / "address", "http://127.0.0.1:9")
        if kind != "endpoint" and now >= ends:
            self._score(job, ends)

    def _score(self, job, now):
        """The end of an evaluation, as the runner and the batch script leave it."""
        name, folder = element_of(job)
        _, task, number, *_ = name.split("-")
        put(folder / "endpoint.log", "the server says hello\n")
        if self.config["first_server_dies"] and number == "0":
            said = self.config["events"].splitlines(keepends=True)
            put(folder / "events", "".join(line for line in said if '"event": "phase"' in line))
            put(folder / "server.exit", "1")
            self._record(job, "server", "1", "", now)
            self._end(job, "FAILED", now)
            return
        put(folder / "events", self.config["events"])
        put(folder / "job.log", "the benchmark is done\n")
        put(folder.parents[1] / "tasks" / task / "output" / "results.json", json.dumps(self.config["results"][task]))
        self._record(job, "done", "", "0", now)
        self._end(job, "COMPLETED", now)

    def _record(self, job, why, server, client, now):
        _, folder = element_of(job)
        for name in ("server.secrets", "job.secrets", "key"):
            (folder / name).unlink(missing_ok=True)
        said = {"job": job["label"], "why": why, "server": server, "client": client, "node": NODE, "at": int(now)}
        put(folder / "ended", "".join(f"{name}={value}\n" for name, value in said.items()))

    def _end(self, job, state, now):
        job["state"], job["ended"] = state, now


def element_of(job):
    """Name and folder of what a job is."""
    return job["element"], Path(job["place"])


def elements(words, count):
    """The same for all that are submitted: an element of an array goes on in the folder of what it stands for."""
    folder = Path(words["chdir"])
    if "array" not in words:
        return [(words["job-name"], folder)]
    lines = (folder / "names").read_text().splitlines()
    return [(name, folder.parents[1] / "jobs" / name) for name in (line.partition(" ")[0] for line in lines[:count])]


def put(path, text):
    """Write a file as a whole."""
    if not path.parent.is_dir():
        return
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def tell(job, line):
    """A line of the job's own output."""
    with contextlib.suppress(OSError), Path(job["output"]).open("a") as file:
        file.write(f"{line}\n")


# --- commands ---------------------------------------------------------------------------------------------------------


def sbatch(folder, words):
    """Submit a job, or with --test-only look whether it could be."""
    options = [word for word in words if word.startswith("--")]
    if "--test-only" in options:
        return 0
    if strikes(folder, "late"):
        time.sleep(json.loads(Path(folder, "config.json").read_text())["late"])
    if strikes(folder, "refuse"):
        print("sbatch: error: Batch job submission failed: Unable to contact slurm controller", file=sys.stderr)
        return 1
    script = Path(words[-1]).read_text()
    with Cluster(folder) as cluster:
        number = cluster.submit(options, script)
    if strikes(folder, "lose"):
        text = "Socket timed out on send/recv operation"
        print(f"sbatch: error: Batch job submission failed: {text}", file=sys.stderr)
        return 1
    print(number)
    return 0


def squeue(folder, words):
    """List jobs."""
    if "--version" in words:
        print(f"slurm-wlm {json.loads(Path(folder, 'config.json').read_text())['version']}")
        return 0
    if strikes(folder, "refuse"):
        print("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", file=sys.stderr)
        return 1
    with Cluster(folder) as cluster:
        jobs = cluster.shown() if "all" in words else [job for job in cluster.jobs if job["state"] in ACTIVE]
    if "-n" in words:
        jobs = [job for job in jobs if job["name"] == words[words.index("-n") + 1]]
    if "--json" in words:
        print(json.dumps({"jobs": [as_json(job) for job in jobs]}))
        return 0
    for job in jobs:
        shown = words[words.index("-o") + 1]
        for letter, value in as_columns(job).items():
            shown = shown.replace(f"%{letter}", value)
        print(shown)
    return 0


def as_columns(job):
    """A job as the text form has it."""
    return {
        "i": job["label"],
        "F": str(job["array"] or job["id"]),
        "T": job["state"],
        "r": "None",
        "V": str(int(job["submitted"])),
        "e": str(int(job["ended"])) if job["ended"] else "N/A",
        "N": NODE if job["begun"] else "",
        "k": job["comment"],
        "j": job["name"],
    }


def as_json(job):
    """A job as data_parser v0.0.40 has it."""
    states = ["CANCELLED", "COMPLETING"] if job["state"] == "COMPLETING" else [job["state"]]
    return {
        "job_id": job["id"],
        "array_job_id": {"set": job["array"] is not None, "infinite": False, "number": job["array"] or 0},
        "array_task_id": {"set": job["array"] is not None, "infinite": False, "number": job["index"]},
        "name": job["name"],
        "job_state": states,
        "state_reason": "None",
        "comment": job["comment"],
        "nodes": NODE if job["begun"] else "",
        "submit_time": {"set": True, "infinite": False, "number": int(job["submitted"])},
        "end_time": {"set": bool(job["ended"]), "infinite": False, "number": int(job["ended"] or 0)},
    }


def scancel(folder, words):
    """Ask for the end of jobs."""
    if strikes(folder, "refuse"):
        print("scancel: error: Kill job error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    with Cluster(folder) as cluster:
        for job in cluster.jobs:
            if job["label"] in words:
                cluster.cancel(job)
    return 0


def scontrol(folder, words):
    """Names and addresses of nodes."""
    if words[:2] == ["show", "hostnames"]:
        print(words[2])
    elif words[:2] == ["show", "node"]:
        print(f"NodeName={words[-1]} Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName={words[-1]}")
    return 0


def sinfo(folder, words):
    """Partitions."""
    print("partition debug|infinite|up|gpu:8")
    return 0


def srun(folder, words):
    """Run a step: the command in place of this one."""
    command = next((place for place, word in enumerate(words) if not word.startswith("--")), None)
    if command is None:
        return 0
    os.environ |= {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    try:
        os.execvp(words[command], words[command:])
    except OSError as error:
        print(f"slurmstepd: error: execve(): {words[command]}: {error.strerror}", file=sys.stderr)
        return 2


def keep(folder, words):
    """Run a job's batch script to its end, as slurmd does: its time limit, and whoever wants it gone, are minded."""
    number = int(words[0])
    with Cluster(folder) as cluster:
        job = next(job for job in cluster.jobs if job["id"] == number)
    env = {
        **os.environ,
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": NODE,
        "SLURMD_NODENAME": NODE,
        "SLURM_CPUS_ON_NODE": "2",
        **functions(folder),
    }
    if job["array"] is not None:
        env |= {"SLURM_ARRAY_JOB_ID": str(job["array"]), "SLURM_ARRAY_TASK_ID": str(job["index"])}
    with Path(job["output"]).open("ab") as output:
        script = subprocess.Popen(
            ["/bin/bash", str(Path(folder, "scripts", str(job["array"] or number)))],
            cwd=job["folder"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    asked = []
    ends = time.monotonic() + 60 * job["minutes"]
    state = ""
    while script.poll() is None:
        if not asked and is_cancelled(folder, number):
            asked.append(time.monotonic())
        if time.monotonic() >= ends and not asked:
            tell(job, f"slurmstepd: error: *** JOB {number} ON {NODE} CANCELLED AT now DUE TO TIME LIMIT ***")
            state = "TIMEOUT"
            asked.append(time.monotonic())
        if asked:
            signal_all(script.pid, signal.SIGTERM if time.monotonic() < asked[0] + KILL_WAIT else signal.SIGKILL)
            state = state or "CANCELLED"
            with contextlib.suppress(subprocess.TimeoutExpired):
                script.wait(KILL_WAIT)
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            script.wait(0.05)
    signal_all(script.pid, signal.SIGKILL)
    with Cluster(folder) as cluster:
        job = next(job for job in cluster.jobs if job["id"] == number)
        cluster._end(job, state or ("FAILED" if script.returncode else "COMPLETED"), time.time())
    return 0


def is_cancelled(folder, number):
    """Whether somebody wants a job gone; asked often, and without waiting for others."""
    jobs = json.loads(Path(folder, "jobs.json").read_text())
    return next(job["asked"] for job in jobs if job["id"] == number) is not None


def functions(folder):
    """Our commands as functions of bash: the batch script reads /etc/profile, which sets another PATH.

    srun takes the place of the shell that it is called in, as a signal to that is meant for it.
    """
    place = shlex.quote(str(Path(folder, "bin")))
    call = {"scontrol": f'{place}/scontrol "$@"', "srun": f'exec {place}/srun "$@"'}
    return {f"BASH_FUNC_{name}%%": f"() {{ {text}; }}" for name, text in call.items()}


def signal_all(session, number):
    """Signal every process of a job's session, whatever groups it has made."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(entry.name)) == session:
                    os.kill(int(entry.name), number)


def strikes(folder, fault):
    """Whether a fault of the config happens now; the same seed gives the same faults."""
    config = json.loads(Path(folder, "config.json").read_text())
    counted = os.open(Path(folder, fault), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(counted, b".")
    occasion = os.fstat(counted).st_size
    os.close(counted)
    return random.Random(f"{config['seed']}/{fault}/{occasion}").random() < config["faults"][fault]


COMMANDS = (sbatch, squeue, scancel, scontrol, sinfo, srun)

if __name__ == "__main__":
    wanted = next(command for command in (*COMMANDS, keep) if command.__name__ == sys.argv[1])
    sys.exit(wanted(sys.argv[2], sys.argv[3:]))
