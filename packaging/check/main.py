"""The check itself: renders, validates, compares. packaging/check-chart provides the programs and starts it.

Owns what is rendered, and with what. What an object has to be is in rules.py.
"""

import copy
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

import rules

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "packaging/helm/litellm-webui-sync"
KUSTOMIZE = ROOT / "packaging/kustomize"
RULE_TESTS = ROOT / "grafana/prometheus/rules_test.yml"
NAME = "litellm-webui-sync"

# The oldest that Chart.yaml allows, and what came since.
VERSIONS = ["1.27", "1.29", "1.31", "1.33", "1.34", "1.35", "1.36", "1.37"]
ALWAYS = {"Deployment", "Service", "ServiceAccount", "Pod"}
# A value set of the chart's ci/: kinds it makes besides.
SETS = {
    "default": {"Secret", "NetworkPolicy"},
    "two-replicas": {"NetworkPolicy", "PodDisruptionBudget"},
    "existing-secret": {"NetworkPolicy"},
    "monitoring": {"NetworkPolicy", "ServiceMonitor", "PrometheusRule", "ConfigMap"},
    "network-policy-off": set(),
    "full": {"Secret", "ConfigMap", "NetworkPolicy"},
}
# What values.schema.json has to refuse, over the value set `default`.
REFUSED = [
    "image.repository=",
    "image.digest=sha256:abc",
    "replicas=-1",
    "replicas=two",
    "replica=2",
    "secret.litellmDatabaseUrl=",
    "secret.webuiDatabaseUrl=mysql://host/webui",
    "secret.existing=sync",
    "secret.httpToken=short",
    "litellm.url=http://litellm:4000",
    "litellm.url=litellm:4000",
    "log.format=xml",
    "log.level=loud",
    "http.address=localhost",
    "networkPolicy.enabled=maybe",
    "networkPolicy.webuiDatabase.ports={99999}",
    "networkPolicy.webuiDatabase.ports=null",
    "resources.limit.memory=1Gi",
    "securityContext.runAsUser=0",
    "securityContext.privileged=true",
    "terminationGracePeriodSeconds=1",
    "prometheusRule.runbooks=https://git.example/docs",
    "serviceMonitor.interval=often",
    "settings.slots=x",
    "nameOverride=Not_A_Name",
]

failures: list[str] = []


def fail(text: str) -> None:
    failures.append(text)
    print(f"  FAILED: {text}", file=sys.stderr)


def title(text: str) -> None:
    print(f"=== {text}", flush=True)


def call(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)


def objects(answer: subprocess.CompletedProcess[str], what: str) -> list[Object]:
    if answer.returncode != 0:
        fail(f"{what}: {answer.stderr.strip()}")
        return []
    return [one for one in yaml.safe_load_all(answer.stdout) if one]


def helm(program: str, *more: str | Path, chart: Path = CHART, release: str = NAME) -> subprocess.CompletedProcess[str]:
    return call(os.environ[program], "template", release, chart, "--namespace", "sync", *more)


def values(name: str) -> Path:
    return CHART / f"ci/{name}-values.yaml"


def validate(found: list[Object], what: str) -> list[str]:
    """What Kubernetes' schemas and the Prometheus Operator's say against objects."""
    wrong = []
    for one in found:
        name = f"{what}: {one['kind']} {one['metadata']['name']}"
        if one["apiVersion"].startswith("monitoring.coreos.com/"):
            wrong += [f"{name}: {text}" for text in validate_operator(one)]
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.utils.SchemaNotFoundError) as error:
                wrong.append(f"{name}, Kubernetes {version}: {str(error).splitlines()[0]}")
    return wrong


def validate_operator(one: Object) -> list[str]:
    model = getattr(operator, one["kind"])
    try:
        read = model.model_validate(one)
    except ValueError as error:
        return [str(error)]
    # The classes drop what they do not know: then less comes back.
    back = read.model_dump(by_alias=True, exclude_none=True, exclude_unset=True, mode="json")
    return [] if back == one else ["has fields that the Prometheus Operator does not know"]


def check(found: list[Object], what: str) -> None:
    for text in validate(found, what):
        fail(text)
    for text in rules.complaints(found):
        fail(f"{what}: {text}")


def check_chart() -> None:
    listed = {path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*.yaml")}
    if listed != set(SETS):
        fail(f"the value sets are {sorted(listed)}, tried are {sorted(SETS)}")
    with tempfile.TemporaryDirectory() as work:
        packed = call(os.environ["HELM4"], "package", CHART, "--destination", work)
        archive = next(Path(work).glob("*.tgz"), None)
        if archive is None:
            fail(f"helm package: {packed.stderr}")
            return
        for name, kinds in SETS.items():
            title(f"chart, values {name}")
            rendered = {}
            for program in ("HELM3", "HELM4"):
                lint = call(os.environ[program], "lint", "--strict", CHART, "--values", values(name))
                if lint.returncode != 0:
                    fail(f"{name}: {program} lint: {lint.stdout}{lint.stderr}")
                rendered[program] = objects(helm(program, "--values", values(name)), f"{name}: {program}")
            if rendered["HELM3"] != rendered["HELM4"]:
                fail(f"{name}: Helm 3 and Helm 4 make different objects")
            if rendered["HELM4"] != objects(helm("HELM4", "--values", values(name), chart=archive), name):
                fail(f"{name}: the packed chart makes different objects")
            made = {one["kind"] for one in rendered["HELM4"]}
            if made != ALWAYS | kinds:
                fail(f"{name}: makes {sorted(made)}, not {sorted(ALWAYS | kinds)}")
            check(rendered["HELM4"], name)


def check_values() -> None:
    title("values that are refused")
    for assignment in REFUSED:
        for program in ("HELM3", "HELM4"):
            answer = helm(program, "--values", values("default"), "--set", assignment)
            if answer.returncode == 0 or "schema" not in answer.stderr:
                fail(f"{program} takes {assignment}: {answer.stderr}")
    title("what a change starts anew")
    once = annotations()
    for assignment in ["policy=[brake]", "secret.httpToken=example-example-example"]:
        if annotations("--set", assignment) == once:
            fail(f"{assignment} does not start the daemon anew")
    if annotations("--set", "serviceMonitor.enabled=true") != once:
        fail("a change elsewhere starts the daemon anew")


def annotations(*more: str) -> Object:
    (deployment,) = rules.kind(objects(helm("HELM4", "--values", values("default"), *more), "default"), "Deployment")
    return deployment["spec"]["template"]["metadata"].get("annotations", {})


def check_alerts(groups: Object, what: str, own_tests: bool) -> None:
    """What Prometheus itself says; with the cases of grafana/ where they know the job."""
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "rules.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
        shutil.copy(RULE_TESTS, work)
        for arguments in [["check", "rules", "rules.yml"], ["test", "rules", RULE_TESTS.name]][: 1 + own_tests]:
            answer = call(os.environ["PROMTOOL"], *arguments, cwd=Path(work))
            if answer.returncode != 0:
                fail(f"{what}: promtool {arguments}: {answer.stdout}{answer.stderr}")
    with (ROOT / "grafana/prometheus/rules.yml").open(encoding="utf-8") as file:
        if len(yaml.safe_load(file)["groups"]) != len(groups["groups"]):
            fail(f"{what}: groups of rules are missing")


def check_monitoring() -> None:
    title("alert rules and dashboard")
    on = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true"
    for what, release, more, own_tests in [
        ("alerts", NAME, [], True),
        ("alerts of another release", "second", [], False),
        ("alerts with runbooks", NAME, ["--values", values("monitoring"), "--set", "secret.existing="], False),
    ]:
        found = objects(helm("HELM4", "--values", values("default"), "--set", on, *more, release=release), what)
        check(found, what)
        for one in rules.kind(found, "PrometheusRule"):
            check_alerts(one["spec"], what, own_tests)
            runbooks = [r["annotations"]["runbook_url"] for group in one["spec"]["groups"] for r in group["rules"]]
            start = "https://git.example/litellm-webui-sync/docs/" if more else "docs/"
            if not runbooks or not all(url.startswith(start) for url in runbooks):
                fail(f"{what}: runbooks are not at {start}")
        boards = [one for one in rules.kind(found, "ConfigMap") if one["metadata"]["name"].endswith("-dashboard")]
        if [yaml.safe_load(one["data"][f"{NAME}.json"])["uid"] for one in boards] != [NAME]:
            fail(f"{what}: no dashboard")


def kustomize(resources: str, components: list[str]) -> list[Object]:
    """Objects of an overlay like those the handbook shows."""
    # Inside packaging/, because kustomize follows relative paths only, and removed at once.
    with tempfile.TemporaryDirectory(dir=ROOT / "packaging") as work:
        overlay = {
            "resources": [f"../kustomize/{resources}"],
            "components": [f"../kustomize/{one}" for one in components],
            "images": [{"name": NAME, "newName": f"registry.example/{NAME}", "newTag": "0.2.0"}],
        }
        (Path(work) / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
        return objects(call(os.environ["KUBECTL"], "kustomize", work), f"kustomize {resources}")


def plain(found: list[Object]) -> dict[str, Any]:
    """Objects without what only Helm or only kustomize writes."""
    result = {}
    for one in copy.deepcopy(found):
        if one["kind"] == "Pod":
            continue
        metadata = one["metadata"]
        metadata.pop("namespace", None)
        for label in ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"):
            metadata.get("labels", {}).pop(label, None)
        if one["kind"] == "ConfigMap" and "sync.toml" in one["data"]:
            metadata["name"], one["data"] = NAME, {"sync.toml": "policy"}
        if one["kind"] == "Deployment":
            one["spec"]["template"]["metadata"].pop("annotations", None)
            for volume in one["spec"]["template"]["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = NAME
        result[f"{one['kind']} {metadata['name']}"] = in_order(one)
    return result


def in_order(value: Any) -> Any:
    """The same, with lists in one order."""
    if isinstance(value, dict):
        return {key: in_order(one) for key, one in value.items()}
    if isinstance(value, list):
        return sorted((in_order(one) for one in value), key=lambda one: yaml.safe_dump(one))
    return value


def check_kustomize() -> None:
    secret = f"secret.existing={NAME},secret.keys.httpToken=LITELLM_WEBUI_SYNC_HTTP_TOKEN"
    same = ["--values", values("two-replicas"), "--set", secret, "--set", "policy=[brake]"]
    monitoring = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true"
    for resources, components, assignment in [
        ("base", [], "replicas=1"),
        ("ha", [], "replicas=2"),
        ("ha", ["monitoring"], f"replicas=2,{monitoring}"),
    ]:
        what = " ".join(["kustomize", resources, *components])
        title(what)
        found = kustomize(resources, components)
        check(found, what)
        for one in rules.kind(found, "PrometheusRule"):
            check_alerts(one["spec"], what, True)
        chart = plain(objects(helm("HELM4", *same, "--set", assignment), what))
        ours = plain(found)
        for name in sorted(chart.keys() | ours.keys()):
            if chart.get(name) != ours.get(name):
                fail(f"{what}: {name} is not what the chart makes:\n{ours.get(name)}\n{chart.get(name)}")


def check_rules() -> None:
    """Breaks one thing after the other: what is not noticed then, is not checked above."""
    title("each rule notices what breaks it")
    more = "replicas=2,serviceMonitor.enabled=true,prometheusRule.enabled=true,policy=[brake]"
    sound = objects(helm("HELM4", "--values", values("default"), "--set", more), "all rules")
    check(sound, "all rules")
    for number, (kind, change) in enumerate(rules.BREAKS):
        broken = copy.deepcopy(sound)
        change(rules.kind(broken, kind)[0])
        if broken == sound or not rules.complaints(broken):
            fail(f"nobody notices break {number}, of a {kind}")
    for kind in {one["kind"] for one in sound}:
        broken = copy.deepcopy(sound)
        one = rules.kind(broken, kind)[0]
        one.get("spec", one)["noSuchField"] = 1
        if not validate(broken, "broken"):
            fail(f"no schema notices a field that a {kind} does not have")
    print(f"  {len(rules.BREAKS)} breaks noticed")


def main() -> int:
    # The schemas are of each version's first release.
    warnings.simplefilter("ignore")
    for program, option in [("HELM3", "--short"), ("HELM4", "--short"), ("KUBECTL", "--client")]:
        print(f"{program}: {' '.join(call(os.environ[program], 'version', option).stdout.split())}")
    for step in (check_chart, check_values, check_monitoring, check_kustomize, check_rules):
        step()
    print(f"=== {len(failures)} failures" if failures else f"=== all passed, for Kubernetes {', '.join(VERSIONS)}")
    return 1 if failures else 0


sys.exit(main())
