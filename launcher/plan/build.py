"""Config to Plan. Every default is resolved here, every contradiction between the parts of a config is found here."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec

from launcher.config.deployment import ONLY_ON_LEPTON, DeepInfra, NoDeployment
from launcher.config.evaluation import EndpointType, Generation, Settings, Task
from launcher.config.execution import Kubernetes, Lepton, Slurm
from launcher.config.fields import Reference
from launcher.config.schema import ApiEndpoint, Config, Limits
from launcher.deployments import build_server
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError
from launcher.harnesses import load_harness
from launcher.harnesses.spec import Harness, HarnessJob, TargetInfo, TaskInfo
from launcher.plan import auxiliary as helpers
from launcher.plan import deepinfra as on_deepinfra
from launcher.plan import kubernetes as on_kubernetes
from launcher.plan import lepton as on_lepton
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TargetPlan, TaskPlan, WorstCase
from launcher.plan.names import endpoint_name, new_invocation_id, resource_name, shared_name, task_keys
from launcher.plan.settings import effective, is_set
from launcher.plan.slurm import jobs as on_slurm

DEFAULT_HARNESS = "lm_eval"
_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))
_ROUTES: tuple[tuple[str, EndpointType | None], ...] = (
    ("/chat/completions", "chat"),
    ("/completions", "completions"),
    ("/v1", None),
)


def build(config: Config, invocation: str | None = None) -> Plan:
    """The plan of one invocation.

    Raises:
        ConfigError: one line for each task or key that contradicts another, an unknown task among them.
    """
    if not config.evaluation.tasks:
        raise ConfigError("evaluation.tasks: no benchmark is named; add `- name: TASK`, see: nv-eval ls tasks")
    return _Builder(config, invocation or new_invocation_id()).plan()


class _Builder:
    """The parts of one plan; each method resolves one of them."""

    def __init__(self, config: Config, invocation: str) -> None:
        self.config = config
        self.invocation = invocation
        self.api = config.target.api_endpoint
        self.notes: list[str] = []
        self.lepton = config.execution if isinstance(config.execution, Lepton) else None
        self.slurm = config.execution if isinstance(config.execution, Slurm) else None
        on_slurm.refuse(config)
        self.kubernetes = config.execution if isinstance(config.execution, Kubernetes) else None
        if self.lepton is None and config.deployment.type in ONLY_ON_LEPTON:
            raise ConfigError(_only_on_lepton(config.deployment.type, config.execution.type))
        self.api_key_name = _api_key_name(self.api)
        self.url, self.url_type = _existing_url(config)
        self.served_name = _served_name(config)
        self.server = build_server(config.deployment, self.served_name)
        self.is_shared = getattr(config.deployment, "sharing", None) == "shared"
        self.evaluates_nothing = config.evaluation.harness == helpers.HARNESS
        self.rented = config.deployment if isinstance(config.deployment, DeepInfra) else None
        self.api_key = self._api_key()
        self.helpers: dict[str, _Builder] = {}
        in_containers = self.lepton or self.kubernetes
        if self.server is not None and in_containers is not None and self.rented is None:
            _refuse_without_image(self.server, in_containers.type)

    def plan(self) -> Plan:
        self.helpers = self._helpers()
        tasks = self._sharing(self._tasks())
        auxiliary = self._auxiliary(tasks)
        execution, limits = self.config.execution, self.config.limits
        return Plan(
            invocation=self.invocation,
            execution=execution.type,
            deployment=self.config.deployment.type,
            output_dir=str(_absolute(execution.output_dir)),
            storage=self._storage(),
            tasks=tasks,
            auxiliary=auxiliary,
            start_jobs=execution.start_jobs,
            max_parallel_endpoints=limits.max_parallel_endpoints,
            max_gpus=limits.max_gpus,
            max_duration=limits.max_duration,
            max_cost_usd=limits.max_cost_usd,
            max_gpu_hours=limits.max_gpu_hours,
            max_attempts=limits.max_attempts,
            usd_per_gpu_hour=execution.usd_per_gpu_hour,
            worst_case=_worst_case((*tasks, *auxiliary), execution.usd_per_gpu_hour, limits.max_attempts),
            export_formats=tuple(self.config.export.formats),
            notes=(*self.notes, *self._execution_notes()),
            config=_of_one_run(self.config),
        )

    def _tasks(self) -> tuple[TaskPlan, ...]:
        keys = task_keys([task.name for task in self.config.evaluation.tasks])
        built: list[TaskPlan] = []
        problems: list[str] = []
        for index, (task, key) in enumerate(zip(self.config.evaluation.tasks, keys, strict=True)):
            try:
                built.append(self._task(index, key, task))
            except ConfigError as error:
                problems += [self._attribute(line, index, task) for line in error.problems]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return tuple(built)

    def _helpers(self) -> dict[str, _Builder]:
        """A builder for each auxiliary endpoint. Raises ConfigError for everything that is wrong with them."""
        found: dict[str, _Builder] = {}
        problems: list[str] = []
        for name, one in self.config.auxiliary.items():
            try:
                helpers.refuse_mixed(self.config, one)
                found[name] = _Builder(helpers.config_of(self.config, one), self.invocation)
                found[name].helper_target()
            except ConfigError as error:
                problems += [helpers.located(name, problem) for problem in error.problems]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return found

    def _auxiliary(self, tasks: tuple[TaskPlan, ...]) -> tuple[TaskPlan, ...]:
        """The auxiliary endpoints that tasks use. Raises ConfigError for names and limits that cannot be."""
        unused = helpers.unused(self.helpers, tasks)
        self.notes += [f"auxiliary.{name} is used by no task, and is not deployed" for name in unused]
        problems = list(helpers.refuse_names(self.helpers, tasks))
        made: list[TaskPlan] = []
        for name, builder in self.helpers.items():
            if name in unused:
                continue
            try:
                made.append(builder.helper(len(tasks) + len(made), name, tasks, self.config.limits))
            except ConfigError as error:
                problems += [helpers.located(name, problem) for problem in error.problems]
            told = [note for note in builder._execution_notes() if note not in self._execution_notes()]
            self.notes += [f"auxiliary {name}: {note}" for note in told]
        problems = problems or list(helpers.beyond_limits(tasks, made, self.config.limits))
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return tuple(made)

    def helper_target(self) -> TargetPlan:
        """How this endpoint is addressed where it is auxiliary: on the chat route, unless it says otherwise."""
        chat = self.server is None or "chat" in self.server.endpoint_types
        route = self.api.type or self.url_type or ("chat" if chat else "completions")
        info = load_harness(helpers.HARNESS).describe("", Settings())
        return self._target(self._endpoint_type(info, Settings(endpoint_type=route)), info)

    def helper(self, index: int, name: str, tasks: tuple[TaskPlan, ...], limits: Limits) -> TaskPlan:
        """This endpoint as one that is auxiliary to those of `tasks` that name it."""
        timeout = helpers.needed_for(name, tasks, limits)
        idle = helpers.idle_for(name, tasks)
        lasting = Settings(timeout=timeout * limits.max_attempts)
        run = load_harness(helpers.HARNESS).job(name, Settings(), self._target_info(self.helper_target().endpoint_type))
        return TaskPlan(
            index=index,
            key=name,
            name=name,
            harness=helpers.HARNESS,
            settings=Settings(),
            target=self.helper_target(),
            endpoint=self._endpoint(index, name, lasting, idle=idle),
            job=JobPlan(
                name=resource_name("eval", name, index, self.invocation),
                run=run,
                timeout=timeout,
                queue_timeout=on_slurm.queue_timeout(self.slurm, timeout * limits.max_attempts) if self.slurm else 0.0,
            ),
        )

    def _sharing(self, tasks: tuple[TaskPlan, ...]) -> tuple[TaskPlan, ...]:
        """The tasks with one endpoint for all, if they share one: it lives as long as any of them may need it."""
        made = [task.endpoint for task in tasks if task.endpoint is not None]
        if not made or not self.is_shared:
            return tasks
        lifetime = max((endpoint.lifetime for endpoint in made if endpoint.lifetime is not None), default=None)
        if lifetime is not None and getattr(self.config.deployment, "expires_after", None) is None:
            further = self.config.limits.max_attempts - 1
            lifetime += further * (max(task.job.timeout for task in tasks) + on_deepinfra.SLACK)
        shared = dataclasses.replace(made[0], is_shared=True, lifetime=lifetime)
        return tuple(dataclasses.replace(task, endpoint=shared) for task in tasks)

    def _attribute(self, problem: str, index: int, task: Task) -> str:
        """A problem of one task with the key it is about: the setting's where it was set, else the task's."""
        here = f"evaluation.tasks[{index}]"
        setting = re.match(r"(?:evaluation\.)?(\w+)(?=[.:])", problem)
        name = setting.group(1) if setting else ""
        if setting is None or name not in _SETTINGS:
            return f"{here} ({task.name}): {problem}"
        rest = problem[setting.start(1) :]
        for key, layer in ((here, task), ("evaluation", self.config.evaluation)):
            if is_set(layer, name):
                return f"{key}.{rest}"
        return f"{here} ({task.name}): {rest}"

    def _task(self, index: int, key: str, task: Task) -> TaskPlan:
        harness, settings = self._settings(task)
        info = harness.describe(task.name, settings)
        if not info.generates:
            settings = _without_generation(task, settings)
        endpoint_type = self._endpoint_type(info, settings)
        used = {name: self.helpers[name].helper_target() for name in helpers.used_by(self.config, settings)}
        run = harness.job(task.name, settings, self._target_info(endpoint_type, tuple(used)))
        run = helpers.with_keys(run, used)
        made = TaskPlan(
            index=index,
            key=key,
            name=task.name,
            harness=harness.name,
            settings=settings,
            target=self._target(endpoint_type, info),
            job=self._job(index, task.name, run, settings, helpers.boot(used)),
            expected_duration=settings.expected_duration or _guess(info, settings),
            auxiliary=used,
        )
        idle = made.longest if used else None  # while a judge works the judged model may get no request
        endpoint = self._endpoint(index, task.name, settings, idle=idle, further=helpers.boot(used))
        return dataclasses.replace(made, endpoint=endpoint)

    def _settings(self, task: Task) -> tuple[Harness, Settings]:
        evaluation = self.config.evaluation
        harness = load_harness(task.harness or evaluation.harness or DEFAULT_HARNESS)
        return harness, effective(harness.defaults, evaluation, task)

    def _endpoint_type(self, info: TaskInfo, settings: Settings) -> EndpointType:
        """The route to evaluate; refuses one that the task or the server cannot do, with the reason."""
        chosen = settings.endpoint_type or self.api.type or self.url_type or info.endpoint_types[0]
        if info.needs_loglikelihood and chosen == "chat":
            raise ConfigError(
                "scores log-likelihoods, which a chat route cannot return; set endpoint_type: completions"
            )
        if chosen not in info.endpoint_types:
            raise ConfigError(f"cannot be evaluated on {chosen}; set endpoint_type: {info.endpoint_types[0]}")
        if self.server is not None and chosen not in self.server.endpoint_types:
            raise ConfigError(f"needs the {chosen} route, which deployment {self.server.type} does not serve")
        if info.needs_loglikelihood:
            self._refuse_without_loglikelihood()
        return chosen

    def _refuse_without_loglikelihood(self) -> None:
        deployment = self.config.deployment
        if self.server is not None and self.server.loglikelihood == "no":
            note = self.server.loglikelihood_note or "use a vllm or sglang deployment for this task"
            raise ConfigError(f"scores log-likelihoods; {note}")
        if isinstance(deployment, NoDeployment) and deployment.loglikelihood == "no":
            raise ConfigError("scores log-likelihoods, and deployment.loglikelihood says that the endpoint has none")

    def _target_info(self, endpoint_type: EndpointType, auxiliary: tuple[str, ...] = ()) -> TargetInfo:
        return TargetInfo(
            model=self._model(),
            endpoint_type=endpoint_type,
            has_api_key=self.api_key is not None,
            remote_tokenizer=self.server is not None and self.server.remote_tokenizer,
            model_id=self.server.model_id if self.server else self.served_name,
            max_length=self.server.max_length if self.server else None,
            single_prompt=self.server is not None and self.server.single_prompt,
            auxiliary=auxiliary,
            served_by=_served_by(self.server) if self.server else self.url or "",
        )

    def _target(self, endpoint_type: EndpointType, info: TaskInfo) -> TargetPlan:
        deployment = self.config.deployment
        health_path = self.server.health.path if self.server else getattr(deployment, "health_path", None)
        return TargetPlan(
            model=self._model(),
            endpoint_type=endpoint_type,
            lists_model=not (self.server is not None and self.server.named_later),
            url=self.url,
            api_key=self.api_key,
            health_path=health_path,
            health_interval=self.server.health.interval if self.server else 1.0,
            needs_loglikelihood=info.needs_loglikelihood,
            start_timeout=self._start_timeout(),
            health_timeout=deployment.health_timeout,
        )

    def _model(self) -> str:
        """The name in requests, or what stands for it until the endpoint exists."""
        return on_deepinfra.MODEL if self.rented else self.served_name

    def _start_timeout(self) -> float:
        deployment = self.config.deployment
        return deployment.health_timeout if isinstance(deployment, NoDeployment) else deployment.start_timeout

    def _api_key(self) -> Reference | None:
        """The key that calls the endpoint. Endpoints of ours in a cloud are guarded even if nobody asks for it."""
        own = Reference(env=self.api_key_name) if self.api_key_name else None
        if self.rented is not None:
            return on_deepinfra.endpoint_key(own)
        if self.slurm is not None:
            return on_slurm.endpoint_key(self.server, own)
        return on_lepton.endpoint_key(self.lepton, own) if self.lepton and self.server else own

    def _endpoint(
        self, index: int, task: str, settings: Settings, *, idle: float | None = None, further: float = 0.0
    ) -> EndpointPlan | None:
        """`idle`: seconds that it may get no request; `further`: those that its task waits for auxiliary endpoints."""
        if self.server is None:
            return None
        name = endpoint_name(self.server.type, task, index, self.invocation)
        if self.is_shared:
            name = shared_name(self.server.type, self.invocation)
        start, health = self._start_timeout(), self.config.deployment.health_timeout
        if self.rented is not None:
            return on_deepinfra.endpoint(
                self.rented,
                self.server,
                name=name,
                start_timeout=start,
                health_timeout=health,
                job_timeout=_timeout(settings),
            )
        if self.kubernetes is not None:
            return on_kubernetes.endpoint(
                self.kubernetes,
                _in_container(self.server),
                name=name,
                invocation=self.invocation,
                start_timeout=start,
                health_timeout=health,
            )
        if self.slurm is not None:
            return on_slurm.endpoint(
                self.slurm,
                self.server,
                name=name,
                invocation=self.invocation,
                start_timeout=start,
                health_timeout=health,
                job_timeout=_timeout(settings),
                job_image=settings.image,
                key=self.api_key,
                further=further,
                evaluates=not self.evaluates_nothing,
            )
        if self.lepton is None:
            return EndpointPlan(name=name, server=self.server, start_timeout=start, health_timeout=health)
        return on_lepton.endpoint(
            self.lepton,
            self.config.pricing,
            _in_container(self.server),
            name=name,
            invocation=self.invocation,
            start_timeout=start,
            health_timeout=health,
            key=self.api_key,
            idle=idle,
        )

    def _job(self, index: int, task: str, run: HarnessJob, settings: Settings, further: float = 0.0) -> JobPlan:
        name = resource_name("eval", task, index, self.invocation)
        timeout = _timeout(settings)
        if self.lepton is not None:
            return on_lepton.job(
                self.lepton,
                self.config.pricing,
                run,
                name=name,
                invocation=self.invocation,
                timeout=timeout,
                image=settings.image,
                key=self.api_key,
            )
        if self.kubernetes is not None:
            return on_kubernetes.job(
                self.kubernetes,
                run,
                name=name,
                invocation=self.invocation,
                task=task,
                timeout=timeout,
                wait=self._start_timeout() + self.config.deployment.health_timeout,
                image=settings.image,
                key=self.api_key,
            )
        if self.slurm is not None:
            return on_slurm.job(
                self.slurm,
                run,
                name=name,
                invocation=self.invocation,
                start_timeout=self._start_timeout(),
                health_timeout=self.config.deployment.health_timeout,
                timeout=timeout,
                image=settings.image,
                has_endpoint=self.server is not None and self.rented is None,
                further=further,
            )
        in_container = getattr(self.config.execution, "runtime", None) == "docker"
        image = settings.image or (run.image if in_container else None)
        return JobPlan(name=name, run=run, timeout=timeout, image=image)

    def _storage(self) -> str:
        if self.lepton is not None:
            return on_lepton.storage(self.lepton, self.invocation)
        if self.slurm is not None:
            return on_slurm.storage(self.slurm, self.invocation)
        if self.kubernetes is not None:
            return on_kubernetes.storage(self.kubernetes, self.invocation)
        return str(_absolute(self.config.execution.output_dir) / self.invocation)

    def _execution_notes(self) -> list[str]:
        if self.rented is not None:
            return on_deepinfra.notes(
                self.rented, self.api_key, key_travels=(self.lepton or self.kubernetes) is not None
            )
        if self.kubernetes is not None:
            return on_kubernetes.notes(self.kubernetes, self.server)
        if self.slurm is not None:
            return on_slurm.notes(self.slurm, self.server, self.api_key, alone=self.evaluates_nothing)
        return on_lepton.notes(self.lepton, self.config.pricing, self.server) if self.lepton else []


def _of_one_run(config: Config) -> dict[str, Any]:
    """The config without what makes a sweep of it."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name != "sweep"}


def _timeout(settings: Settings) -> float:
    """Seconds that a job may take."""
    return settings.timeout or 4 * 3600.0


def _served_by(server: ServerSpec) -> str:
    """A digest of all of a server that its answers may depend on; of secrets only their names."""
    parts = (server.type, server.model_id, server.revision, server.image, server.command, server.env, server.files)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _without_generation(task: Task, settings: Settings) -> Settings:
    """Settings of a task that writes no answers: what is said of answers for all tasks is for the others.

    Raises ConfigError where the task itself says it.
    """
    useless = [name for name in ("generation", "max_gen_tokens") if is_set(task, name)]
    if useless:
        raise ConfigError(
            [f"{name}: {task.name} only scores given answers, so this has no effect; remove it" for name in useless]
        )
    return dataclasses.replace(settings, generation=Generation(), max_gen_tokens=None)


def _only_on_lepton(deployment: str, execution: str) -> str:
    instead = "vllm or sglang" if deployment == "lepton_llm" else "container"
    return f"deployment.type: {deployment} runs only on Lepton; set execution=lepton, or for {execution} use {instead}"


def _refuse_without_image(server: ServerSpec, execution: str) -> None:
    if server.image is not None or server.template is not None or server.photon is not None:
        return
    if server.type == "smollm":
        raise ConfigError("deployment.type: smollm runs only as a process on this machine; set execution=local")
    raise ConfigError(f"deployment.image: is missing; {execution} runs servers in containers")


def _absolute(folder: str) -> Path:
    try:
        return Path.cwd() / Path(folder).expanduser()
    except RuntimeError:
        raise ConfigError(f"execution.output_dir: {folder}: there is no such home; write the whole path") from None


def _existing_url(config: Config) -> tuple[str | None, EndpointType | None]:
    """Base URL without /v1 of an existing endpoint, and the route its path named, if any."""
    url, is_none = config.target.api_endpoint.url, isinstance(config.deployment, NoDeployment)
    if not is_none and url is not None:
        raise ConfigError(
            f"target.api_endpoint.url: deployment {config.deployment.type} makes its own endpoint; "
            "remove the URL, or set deployment=none"
        )
    if not is_none:
        return None, None
    if url is None:
        raise ConfigError("target.api_endpoint.url: is missing; deployment none needs the URL of an endpoint")
    return _base_url(url)


def _base_url(url: str) -> tuple[str, EndpointType | None]:
    parts = _split_url(url)
    path, named = parts.path.rstrip("/"), None
    for suffix, route in _ROUTES:
        if path.endswith(suffix):
            path, named = path.removesuffix(suffix), named or route
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")), named


def _split_url(url: str) -> SplitResult:
    """The parts of a URL. What it holds is not shown in an error: it may be a password."""
    key = "target.api_endpoint.url"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{key}: is no URL; write http://HOST:PORT, with a port up to 65535") from None
    if "@" in parts.netloc or "@" in url.partition("?")[0].partition("/")[0]:
        raise ConfigError(f"{key}: holds a password; name the key's variable in target.api_endpoint.api_key_name")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{key}: is no URL; it begins with http:// or https:// and names a host")
    if parts.query or parts.fragment:
        raise ConfigError(f"{key}: has a query or fragment, which no request would carry; leave it out")
    return parts


def _api_key_name(api: ApiEndpoint) -> str | None:
    name = api.api_key_name
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(
            "target.api_endpoint.api_key_name: expected the name of an environment variable, not what it holds"
        )
    return name


def _served_name(config: Config) -> str:
    api: ApiEndpoint = config.target.api_endpoint
    if isinstance(config.deployment, NoDeployment):
        if api.model_id is None:
            raise ConfigError("target.api_endpoint.model_id: is missing; an existing endpoint needs the model's name")
        return api.model_id
    if not config.deployment.model_id:
        raise ConfigError("deployment.model_id: is empty; name the model to serve")
    own = config.deployment.served_model_name
    if own and api.model_id and own != api.model_id:
        raise ConfigError(
            f"deployment.served_model_name ({own}) and target.api_endpoint.model_id ({api.model_id}) differ; set one"
        )
    return own or api.model_id or config.deployment.model_id


def _in_container(server: ServerSpec) -> ServerSpec:
    """The server as it runs alone in a container: it binds every address, and its port is known now."""
    known = {"{host}": "0.0.0.0", "{port}": str(server.port)}  # noqa: S104 - the platform's gateway guards it
    return dataclasses.replace(
        server,
        command=tuple(_fill(part, known) for part in server.command),
        env={name: _fill(value, known) if isinstance(value, str) else value for name, value in server.env.items()},
    )


def _fill(text: str, known: dict[str, str]) -> str:
    for placeholder, value in known.items():
        text = text.replace(placeholder, value)
    return text


def _guess(info: TaskInfo, settings: Settings) -> float | None:
    """Seconds, roughly: only the order of tasks depends on it."""
    if info.samples is None:
        return None
    limit = settings.limit
    samples = info.samples if limit is None else info.samples * limit if limit < 1 else min(info.samples, limit)
    return max(1.0, 0.1 * samples)


def _worst_case(tasks: tuple[TaskPlan, ...], price: float | None, attempts: int) -> WorstCase:
    """`price` in USD per GPU-hour, for endpoints whose shape has none of its own; `attempts` of each task."""
    known = price is not None or any(task.endpoint or task.job.usd_per_hour for task in tasks)
    usd = sum(task.longest / 3600 * (task.job.usd_per_hour or 0.0) for task in tasks)
    gpu_hours = 0.0
    for endpoint, hours in _endpoint_hours(tasks):
        hourly = endpoint.hourly(price)
        known = known and hourly is not None
        gpu_hours += hours * endpoint.gpus
        usd += hours * (hourly or 0.0)
    return WorstCase(gpu_hours=round(attempts * gpu_hours, 3), usd=round(attempts * usd, 2) if known else None)


def _endpoint_hours(tasks: tuple[TaskPlan, ...]) -> list[tuple[EndpointPlan, float]]:
    """Each endpoint once with the hours that it may live; jobs that share one run side by side."""
    hours: dict[str, float] = {}
    endpoints: dict[str, EndpointPlan] = {}
    for task in tasks:
        if task.endpoint is not None:
            endpoints[task.endpoint.name] = task.endpoint
            hours[task.endpoint.name] = max(hours.get(task.endpoint.name, 0.0), task.longest / 3600)
    return [(endpoints[name], hours[name]) for name in endpoints]
