"""What every rendered object has to be, beyond Kubernetes' schemas: hardened, and fitting to the others.

Pure: a list of objects in, complaints out. `BREAKS` has a way to break each rule; main.py sees that each is noticed.
"""

from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]

# Path in the pod's spec: what stands there. None: nothing does.
POD = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext.runAsNonRoot": True,
    "securityContext.seccompProfile.type": "RuntimeDefault",
    "hostNetwork": None,
    "hostPID": None,
    "hostIPC": None,
    "initContainers": None,
}
# Path in the container.
CONTAINER = {
    "securityContext.allowPrivilegeEscalation": False,
    "securityContext.readOnlyRootFilesystem": True,
    "securityContext.privileged": None,
    "securityContext.capabilities": {"drop": ["ALL"]},
}
# Path in the daemon's container. A standby answers 503 on /readyz.
PROBES = {
    "livenessProbe.httpGet": {"path": "/healthz", "port": "http"},
    "readinessProbe.httpGet": {"path": "/healthz", "port": "http"},
}
RESOURCES = ("requests.cpu", "requests.memory", "limits.memory")
# Path in the Deployment's spec. The new daemon is there before the old one goes.
ROLLOUT = {"strategy.rollingUpdate.maxUnavailable": 0, "strategy.rollingUpdate.maxSurge": 1}
MARGIN_SECONDS = 10


def get(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, metadata and spec of each pod."""
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["metadata"], one["spec"]
        elif get(one, "spec.template.spec"):
            yield name, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]


def kind(objects: list[Object], name: str) -> list[Object]:
    return [one for one in objects if one["kind"] == name]


def selects(selector: Object | None, labels: Object) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def complaints(objects: list[Object]) -> list[str]:
    found = [text for name, metadata, spec in pods(objects) for text in of_pod(name, metadata, spec, objects)]
    for deployment in kind(objects, "Deployment"):
        found += of_deployment(deployment)
    found += of_network(objects)
    found += of_monitoring(objects)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    found += [f"{one} twice" for one in set(names) if names.count(one) > 1]
    if len(kind(objects, "Deployment")) != 1:
        found.append("not one Deployment")
    return found


def wanted(name: str, value: Any, paths: dict[str, Any]) -> Iterator[str]:
    for path, want in paths.items():
        if get(value, path) != want:
            yield f"{name}: {path} is {get(value, path)!r}, not {want!r}"


def of_pod(name: str, metadata: Object, spec: Object, objects: list[Object]) -> Iterator[str]:
    yield from wanted(name, spec, POD)
    account = spec.get("serviceAccountName")
    accounts = [one for one in kind(objects, "ServiceAccount") if one["metadata"]["name"] == account]
    if [one.get("automountServiceAccountToken") for one in accounts] != [False]:
        yield f"{name}: no ServiceAccount {account} without a token"
    if len(spec["containers"]) != 1:
        yield f"{name}: not one container"
    for container in spec["containers"]:
        yield from wanted(name, container, CONTAINER)
        for path in RESOURCES:
            if not get(container, f"resources.{path}"):
                yield f"{name}: no {path}"
        image = container["image"]
        if image.endswith(":latest") or ":" not in image.split("/")[-1]:
            yield f"{name}: the image {image} is whatever is there that day"
        yield from of_mounts(name, spec, container, objects)
    networks = kind(objects, "NetworkPolicy")
    if networks and not any(selects(get(one, "spec.podSelector.matchLabels"), metadata["labels"]) for one in networks):
        yield f"{name}: no NetworkPolicy selects it"


def of_mounts(name: str, spec: Object, container: Object, objects: list[Object]) -> Iterator[str]:
    """Secrets come as files, read-only; a file that a variable names is one that is mounted."""
    volumes = {one["name"]: one for one in spec.get("volumes", [])}
    files, folders = set(), set()
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        if mount.get("readOnly") is not True:
            yield f"{name}: {mount['name']} can be written"
        folders.add(mount["mountPath"])
        if "secret" in volume:
            if volume["secret"].get("defaultMode") != 0o440:
                yield f"{name}: others can read {mount['name']}"
            files |= {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"].get("items", [])}
            keys = {item["key"] for item in volume["secret"].get("items", [])}
            for made in kind(objects, "Secret"):
                if made["metadata"]["name"] == volume["secret"]["secretName"] and set(made["stringData"]) != keys:
                    yield f"{name}: the Secret has {sorted(made['stringData'])}, mounted are {sorted(keys)}"
        elif "configMap" in volume:
            source = [c for c in kind(objects, "ConfigMap") if c["metadata"]["name"] == volume["configMap"]["name"]]
            files |= {f"{mount['mountPath']}/{key}" for one in source for key in one["data"]}
        else:
            yield f"{name}: {mount['name']} is neither a Secret nor a ConfigMap"
    if set(volumes) != {mount["name"] for mount in container.get("volumeMounts", [])}:
        yield f"{name}: volumes and mounts differ"
    variables = {one["name"]: one for one in container["env"]}
    if len(variables) != len(container["env"]):
        yield f"{name}: a variable twice"
    for variable, one in variables.items():
        value = one.get("value")
        if value is None or "@" in value or variable in ("LITELLM_DATABASE_URL", "WEBUI_DATABASE_URL"):
            yield f"{name}: {variable} may hold a secret"
        elif value.startswith("/") and value not in files:
            # Of the Secret with certificates only the folder is known.
            if value.rsplit("/", 1)[0] not in folders or "/tls/" not in value:
                yield f"{name}: {variable} names {value}, which is not mounted"
    for variable in ("LITELLM_DATABASE_URL_FILE", "WEBUI_DATABASE_URL_FILE"):
        if variable not in variables:
            yield f"{name}: no {variable}"


def of_deployment(deployment: Object) -> Iterator[str]:
    spec = deployment["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    yield from wanted("Deployment", spec, ROLLOUT)
    yield from wanted("Deployment", pod["containers"][0], PROBES)
    if not spec.get("minReadySeconds"):
        yield "Deployment: a daemon that ends at its start is not noticed"
    if not selects(get(spec, "selector.matchLabels"), labels):
        yield "Deployment: does not select its pods"
    if pod.get("terminationGracePeriodSeconds", 0) < MARGIN_SECONDS:
        yield "Deployment: too little time to drain"
    spread = pod.get("topologySpreadConstraints", [])
    if not all(selects(get(one, "labelSelector.matchLabels"), labels) for one in spread):
        yield "Deployment: spreads other pods"
    if {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} - {one["topologyKey"] for one in spread}:
        yield "Deployment: is not spread"
    if any(one["whenUnsatisfiable"] != "ScheduleAnyway" for one in spread):
        yield "Deployment: a cluster of one node cannot run it"
    has_policy = any("configMap" in volume for volume in pod["volumes"])
    hashed = "checksum/policy" in spec["template"]["metadata"].get("annotations", {})
    names = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    if has_policy and not hashed and not all(len(name.rsplit("-", 1)[-1]) == 10 for name in names):
        yield "Deployment: a changed policy does not start it anew"


def of_network(objects: list[Object]) -> Iterator[str]:
    (daemon,) = (metadata["labels"] for name, metadata, _ in pods(objects) if name.startswith("Deployment"))
    for one in kind(objects, "Service"):
        if not selects(get(one, "spec.selector"), daemon) or "component" not in str(get(one, "spec.selector")):
            yield "Service: does not select the daemons alone"
        if get(one, "spec.publishNotReadyAddresses") is not True or get(one, "spec.type") not in (None, "ClusterIP"):
            yield "Service: hides daemons that are not well, or can be reached from outside"
    for one in kind(objects, "NetworkPolicy"):
        spec = one["spec"]
        if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
            yield "NetworkPolicy: does not limit both directions"
        if any(rule.get("ports") != [{"port": "http"}] or not rule.get("from") for rule in spec.get("ingress", [])):
            yield "NetworkPolicy: lets in more than asked for"
        if any(not rule.get("ports") for rule in spec["egress"]):
            yield "NetworkPolicy: lets out to every port"
        if {(p["port"], p.get("protocol")) for p in spec["egress"][0]["ports"]} != {(53, "UDP"), (53, "TCP")}:
            yield "NetworkPolicy: no DNS"
    (deployment,) = kind(objects, "Deployment")
    budgets = kind(objects, "PodDisruptionBudget")
    for one in budgets:
        if deployment["spec"]["replicas"] < 2:
            yield "PodDisruptionBudget: of a single daemon, whose node could never be emptied"
        if get(one, "spec.maxUnavailable") != 1 or not selects(get(one, "spec.selector.matchLabels"), daemon):
            yield "PodDisruptionBudget: is not about the daemons, one after the other"


def of_monitoring(objects: list[Object]) -> Iterator[str]:
    jobs = set()
    for one in kind(objects, "ServiceMonitor"):
        labels = [service["metadata"]["labels"] for service in kind(objects, "Service")]
        if not all(selects(get(one, "spec.selector.matchLabels"), found) for found in labels):
            yield "ServiceMonitor: does not select the Service"
        for endpoint in one["spec"]["endpoints"]:
            jobs |= {r["replacement"] for r in endpoint["relabelings"] if r.get("targetLabel") == "job"}
    for one in kind(objects, "PrometheusRule"):
        if kind(objects, "ServiceMonitor") and not jobs:
            yield "ServiceMonitor: leaves the job's name to chance"
        if jobs and not all(f'job="{job}"' in str(one["spec"]).replace("\\", "") for job in jobs):
            yield f"PrometheusRule: knows no job {jobs}"


def put(path: str, value: Any) -> Callable[[Object], None]:
    def change(target: Object) -> None:
        *parents, last = path.split(".")
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
        target[int(last) if isinstance(target, list) else last] = value

    return change


IN_POD = "spec.template.spec"
FIRST = f"{IN_POD}.containers.0"
# Kind, and how to break one object of it.
BREAKS: list[tuple[str, Callable[[Object], None]]] = [
    *(("Deployment", put(f"{IN_POD}.{path}", "broken")) for path in POD),
    *(("Deployment", put(f"{FIRST}.{path}", "broken")) for path in [*CONTAINER, *PROBES]),
    *(("Deployment", put(f"{FIRST}.resources.{path}", None)) for path in RESOURCES),
    *(("Deployment", put(f"spec.{path}", "100%")) for path in ROLLOUT),
    ("Deployment", put("spec.minReadySeconds", 0)),
    ("Deployment", put("spec.selector.matchLabels", {"app": "another"})),
    ("Deployment", put("spec.template.metadata.annotations", {})),
    ("Deployment", put(f"{IN_POD}.terminationGracePeriodSeconds", 5)),
    ("Deployment", put(f"{IN_POD}.topologySpreadConstraints", [])),
    ("Deployment", put(f"{IN_POD}.topologySpreadConstraints.0.whenUnsatisfiable", "DoNotSchedule")),
    ("Deployment", put(f"{IN_POD}.topologySpreadConstraints.0.labelSelector", {})),
    ("Deployment", put(f"{IN_POD}.serviceAccountName", "default")),
    ("Deployment", put(f"{IN_POD}.volumes.0.secret.defaultMode", 0o444)),
    ("Deployment", put(f"{IN_POD}.volumes.0.secret.items.0.key", "another")),
    ("Deployment", put(f"{IN_POD}.volumes.0", {"name": "secrets", "hostPath": {"path": "/"}})),
    ("Deployment", put(f"{FIRST}.volumeMounts.0.readOnly", False)),
    ("Deployment", put(f"{FIRST}.volumeMounts.0.mountPath", "/elsewhere")),
    ("Deployment", put(f"{FIRST}.env.0.value", "postgresql://sync:secret@host/litellm")),
    ("Deployment", put(f"{FIRST}.env", [])),
    ("Deployment", put(f"{FIRST}.image", "registry.example/litellm-webui-sync")),
    ("Deployment", put("spec.replicas", 1)),
    ("Pod", put("spec.containers.0.securityContext.readOnlyRootFilesystem", False)),
    ("Pod", put("metadata.labels", {"app": "another"})),
    ("ServiceAccount", put("automountServiceAccountToken", True)),
    ("Service", put("spec.selector", {"app": "another"})),
    ("Service", put("spec.publishNotReadyAddresses", False)),
    ("Service", put("spec.type", "LoadBalancer")),
    ("Service", put("metadata.labels", {"app": "another"})),
    ("NetworkPolicy", put("spec.policyTypes", ["Ingress"])),
    ("NetworkPolicy", put("spec.ingress", [{}])),
    ("NetworkPolicy", put("spec.egress.1.ports", None)),
    ("NetworkPolicy", put("spec.egress.0.ports.0.port", 54)),
    ("PodDisruptionBudget", put("spec.maxUnavailable", 0)),
    ("PodDisruptionBudget", put("spec.selector.matchLabels", {"app": "another"})),
    ("ServiceMonitor", put("spec.endpoints.0.relabelings.0.replacement", "another")),
    ("ServiceMonitor", put("spec.endpoints.0.relabelings", [{"action": "labelmap"}])),
]
