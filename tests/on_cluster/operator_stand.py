"""What the operator's tests on the cluster stand on: a namespace, a trainer that plays its part, a real operator.

Not a test itself. The trainer is stand_in_trainer.sh, which speaks the stage protocol, so that a test takes
seconds; everything else is real: API server, Jobs, pods, Secrets, logs, Deployments, the chart's Roles,
model-fetch and S3.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kubernetes.config import new_client_from_config

from devcluster import images, lifecycle, namespaces
from devcluster.access import Access
from devcluster.images import CONTAINER_VENV
from devcluster.kubectl import tools_folder
from devcluster.paths import Instance
from devcluster.progress import Progress
from finetune_contract.artifacts import ArtifactKind, FileEntry, GoldenQuestion, Manifest

ROOT = Path(__file__).parents[2]
TRAINER_IMAGE = "localhost/stand-in-trainer:1"
SERVING_IMAGE = "localhost/finetune-serving:dev"
OPERATOR = "operator-under-test"
GPU = "tests.example/gpu"
"""An extended resource without a device behind it: the scheduler counts it all the same."""
Json = dict[str, Any]
PATHS = {
    "configmap": "api/v1/namespaces/{namespace}/configmaps",
    "service": "api/v1/namespaces/{namespace}/services",
    "deployment": "apis/apps/v1/namespaces/{namespace}/deployments",
    "job": "apis/batch/v1/namespaces/{namespace}/jobs",
    "lease": "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "finetunerun": "apis/finetune-operator.io/v1alpha1/namespaces/{namespace}/finetuneruns",
    "finetuneschedule": "apis/finetune-operator.io/v1alpha1/namespaces/{namespace}/finetuneschedules",
}
"""What tests read again and again: over one connection, for a kubectl each would keep the machine busy."""

SERVER = """
import http.server, itertools, json, os, socket, threading, time
while os.environ.get("WAITS_FOR") and os.environ.get("MODEL_ID"):
    try:
        socket.gethostbyname(os.environ["WAITS_FOR"])
        break
    except OSError:
        time.sleep(1)
if os.environ.get("SILENT_WITH", "none") == os.environ.get("MODEL_ID"):
    time.sleep(600)
if os.environ.get("CRASHES_WITH", "none") == os.environ.get("MODEL_ID"):
    threading.Timer(float(os.environ["CRASHES_AFTER"]), os._exit, [7]).start()
if os.environ.get("EATS_MEMORY_WITH", "none") == os.environ.get("MODEL_ID"):
    eaten = b"x" * 400_000_000
turns = itertools.count()
class Answer(http.server.BaseHTTPRequestHandler):
    model = os.environ.get("MODEL_ID") or "none"
    def do_GET(self):
        kubelet = self.headers.get("User-Agent", "").startswith("kube-probe")
        stumbles = os.environ.get("STUMBLES_WITH") == self.model and not kubelet and next(turns) % 3 == 2
        self.say({"model": self.model, "data": [{"id": self.model}]}, 502 if stumbles else 200)
    def do_POST(self):
        words = os.environ.get("SAYS", "It turns.")
        words = "<unused>" if os.environ.get("NONSENSE_WITH") == self.model else words
        self.say({"choices": [{"message": {"content": words}}], "answer": words, "model": self.model})
    def say(self, words, status=200):
        body = json.dumps(words).encode()
        self.send_response(status); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
for address in (("", 8000), ("127.0.0.1", 8081)):
    server = http.server.ThreadingHTTPServer(address, Answer)
    threading.Thread(target=server.serve_forever).start()
"""


def load_trainer(instance: Instance, scratch: Path) -> None:
    """Give the node the image of the trainer that plays its part."""
    rootfs = scratch / "rootfs"
    for name in ("usr", "proc", "sys", "dev", "etc", "run", "tmp", "var/tmp", "app/bin"):
        (rootfs / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    script = rootfs / "app/bin/finetune-stage"
    script.write_bytes(Path(__file__).with_name("stand_in_trainer.sh").read_bytes())
    script.chmod(0o755)
    archive = scratch / "trainer.tar"
    config = images.ImageConfig(user="65532:65532", env={"PATH": "/app/bin:/usr/bin:/bin"})
    images.write_archive(archive, [TRAINER_IMAGE], rootfs, config)
    lifecycle.load_image(instance, archive, Progress())


def give_gpus(cluster: Access) -> None:
    """Four of them, to the node."""
    patch = json.dumps({"status": {"capacity": {GPU: "4"}}})
    node = cluster.kubectl("get", "nodes", "--output=name").strip()
    cluster.kubectl("patch", node, "--subresource=status", "--type=merge", f"--patch={patch}")


class Stand:
    """One namespace with the Secrets, the chart's Roles and an operator that runs outside as a plain process."""

    def __init__(self, cluster: Access, instance: Instance, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.namespace = f"operator-{uuid.uuid4().hex[:6]}"
        self._instance = instance
        self._operators: dict[str, subprocess.Popen[bytes]] = {}
        self._api = new_client_from_config(str(cluster.kubeconfig))

    # kubectl

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, text_input=text)

    def apply(self, *documents: Json, manager: str = "the-user") -> None:
        text = "\n---\n".join(json.dumps(document) for document in documents)
        self.kubectl("apply", "--server-side", f"--field-manager={manager}", "--filename=-", text=text)

    def get(self, kind: str, name: str) -> Json:
        path = PATHS[kind].format(namespace=self.namespace)
        answer = self._api.call_api("GET", f"{self._api.configuration.host}/{path}/{name}")
        found: Json = json.loads(answer.read())
        assert answer.status == 200, found["message"]
        return found

    def names(self, kind: str) -> list[str]:
        return self.kubectl("get", kind, "--output=jsonpath={.items[*].metadata.name}").split()

    # set up

    def set_up(self) -> None:
        """The namespace enforces the restricted pod security standard, as a careful team's would."""
        self.log.touch()
        self.cluster.kubectl("create", "namespace", self.namespace)
        self.cluster.kubectl(
            "label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted"
        )
        self.cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", f"--filename={ROOT / 'crds/finetuneruns.yaml'}"
        )
        crd = "crd/finetuneruns.finetune-operator.io"
        # A CRD that was made this moment has no list of conditions yet, and `wait` fails on that.
        self.cluster.kubectl("wait", "--for=jsonpath={.status.acceptedNames.kind}=FineTuneRun", crd)
        self.cluster.kubectl("wait", "--for=condition=Established", crd)
        rendered = subprocess.run(
            [
                str(tools_folder() / "helm"),
                "template",
                "finetune-operator",
                str(ROOT / "charts/finetune-operator"),
                f"--namespace={self.namespace}",
                "--show-only=templates/rbac.yaml",
                "--show-only=templates/serviceaccount.yaml",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        self.kubectl("apply", "--server-side", "--filename=-", text=rendered)
        self.apply(
            self.secret(
                "s3", accessKeyId=self.cluster.s3_access_key, secretAccessKey=self.cluster.s3_secret_key
            ),
            self.secret("wordpress", username="reader", password="secret"),
        )

    def tear_down(self) -> None:
        for name in list(self._operators):
            self.stop_operator(name)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")
        self._api.close()

    def secret(self, name: str, **values: str) -> Json:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}

    # the operator

    def start_operator(self, name: str = OPERATOR) -> None:
        """A real process with nothing but the rights that the chart gives, in the pods' network."""
        keeper = namespaces.running_keeper(self._instance)
        assert keeper is not None
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "KUBECONFIG": str(self._kubeconfig()),
            "POD_NAMESPACE": self.namespace,
            "POD_NAME": name,
            "FINETUNE_TRAINER_IMAGE": TRAINER_IMAGE,
            "FINETUNE_HTTP_PORT": "0",
            "FINETUNE_RESYNC_SECONDS": "10",
            "FINETUNE_LOG_FORMAT": "text",
            "PYTHONPATH": f"{ROOT / 'contract'}:{ROOT / 'operator'}",
        }
        with self.log.open("ab") as log:
            self._operators[name] = subprocess.Popen(
                ["nsenter", "--target", str(keeper.pid), "--net", sys.executable, "-m", "finetune_operator"],
                env=environment,
                stderr=log,
                stdout=log,
                cwd=self.folder,
            )

    def kill_operator(self, name: str = OPERATOR) -> None:
        operator = self._operators.pop(name)
        operator.send_signal(signal.SIGKILL)
        operator.wait(10)

    def _restart_ended(self) -> None:
        """What the kubelet does for an operator that ended by itself, such as one that lost its Lease."""
        for name, operator in list(self._operators.items()):
            if operator.poll() is not None:
                self.start_operator(name)

    def stop_operator(self, name: str = OPERATOR) -> int | None:
        """SIGTERM; the exit status, or None when it had to be killed."""
        operator = self._operators[name]
        operator.terminate()
        try:
            status = operator.wait(15)
        except subprocess.TimeoutExpired:
            self.kill_operator(name)
            return None
        del self._operators[name]
        return status

    @property
    def holder(self) -> str:
        """Who holds the Lease."""
        found: str = self.get("lease", "finetune-operator")["spec"].get("holderIdentity", "")
        return found

    @property
    def log(self) -> Path:
        return self.folder / "operator.log"

    def _kubeconfig(self) -> Path:
        """The service account's own, by a token."""
        path = self.folder / "operator.kubeconfig"
        token = self.kubectl("create", "token", "finetune-operator", "--duration=2h").strip()
        content = yaml.safe_load(self.cluster.kubeconfig.read_text())
        content["users"] = [{"name": user["name"], "user": {"token": token}} for user in content["users"]]
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content))
        return path

    # runs

    def run(self, name: str, *, train_seconds: int = 1, manifest: str = "0" * 64, **changes: Any) -> Json:
        """A FineTuneRun that the stand-in trainer plays."""
        wordpress = {
            "url": f"http://play/{train_seconds}/{manifest}",
            "credentialsSecretRef": {"name": "wordpress"},
        }
        spec: Json = {
            "baseModel": {"uri": "s3://models/base/"},
            "dataset": {"sources": [{"name": "blog", "wordpress": wordpress}]},
            "store": {
                "s3": {
                    "bucket": self.cluster.s3_bucket,
                    "prefix": f"{self.namespace}/{manifest[:12]}",
                    "credentialsSecretRef": {"name": "s3"},
                }
            },
            "resources": {
                part: {"cpu": "10m", "memory": "64Mi", "sharedMemory": "16Mi", "scratch": "64Mi"}
                for part in ("train", "other")
            },
        }
        return {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneRun",
            "metadata": {"name": name},
            "spec": spec | changes,
        }

    def status(self, name: str) -> Json:
        found: Json = self.get("finetunerun", name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Json:
        conditions: list[Json] = self.status(name).get("conditions", [])
        return next((found for found in conditions if found["type"] == kind), {})

    def until(self, name: str, holds: Callable[[Json], bool], seconds: float = 90) -> Json:
        """The run's status as soon as it is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._restart_ended()
            status = self.status(name)
            if holds(status):
                return status
            time.sleep(0.5)
        raise AssertionError(
            f"not so after {seconds} s: {json.dumps(self.status(name), indent=1)}\n"
            f"{self.log.read_text()[-3000:]}\n{self.kubectl('get', 'pods,jobs')}"
        )

    def phase(self, name: str, phase: str, seconds: float = 90) -> Json:
        return self.until(name, lambda status: status.get("phase") == phase, seconds)

    # the target and its models

    def put_model(
        self,
        content: bytes,
        *,
        path: str = "model.gguf",
        spoil: bool = False,
        golden: Sequence[GoldenQuestion] = (),
    ) -> str:
        """A model of one small file in the real S3; returns its manifest's sha256. Spoilt: the file differs from it.
        Golden: what its evaluation kept to be asked again.
        """
        entry = FileEntry(
            path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), serving=True
        )
        manifest = Manifest(kind=ArtifactKind.MODEL, files=[entry])
        prefix = f"{self.namespace}/{manifest.sha256()[:12]}"
        s3 = boto3.client(
            "s3",
            endpoint_url=self.cluster.s3_endpoint,
            region_name=self.cluster.s3_region,
            aws_access_key_id=self.cluster.s3_access_key,
            aws_secret_access_key=self.cluster.s3_secret_key,
        )
        body = content[::-1] if spoil else content
        s3.put_object(Bucket=self.cluster.s3_bucket, Key=f"{prefix}/{path}", Body=body)
        s3.put_object(Bucket=self.cluster.s3_bucket, Key=f"{prefix}/manifest.json", Body=manifest.to_bytes())
        if golden:
            lines = "".join(json.dumps(question.to_wire()) + "\n" for question in golden)
            s3.put_object(Bucket=self.cluster.s3_bucket, Key=f"{prefix}/golden.jsonl", Body=lines.encode())
        s3.close()
        return manifest.sha256()

    def target_with(self, name: str, **server_env: str) -> Json:
        """A target whose server is told to do something."""
        deployment = self.deployment(name)
        (server,) = deployment["spec"]["template"]["spec"]["containers"]
        server["env"] = [{"name": key, "value": value} for key, value in server_env.items()]
        return deployment

    def deployment(self, name: str, **fetch_env: str) -> Json:
        """A target with the real model-fetch and a server that only names its model."""
        restricted = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }

        def key(env: str, secret_key: str) -> Json:
            return {"name": env, "valueFrom": {"secretKeyRef": {"name": "s3", "key": secret_key}}}

        mounts = [{"name": "models", "mountPath": "/models"}]
        fetch = {
            "name": "model-fetch",
            "image": SERVING_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": ["finetune-model-fetch"],
            "env": [
                {"name": "AWS_ENDPOINT_URL", "value": self.cluster.s3_endpoint},
                {"name": "AWS_REGION", "value": self.cluster.s3_region},
                key("AWS_ACCESS_KEY_ID", "accessKeyId"),
                key("AWS_SECRET_ACCESS_KEY", "secretAccessKey"),
                *({"name": name, "value": value} for name, value in fetch_env.items()),
            ],
            "volumeMounts": mounts,
            "securityContext": restricted,
        }
        server = {
            "name": "model-server",
            "image": SERVING_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": [str(CONTAINER_VENV / "bin" / "python"), "-S", "-c", SERVER],
            "readinessProbe": {"httpGet": {"port": 8000, "path": "/readyz"}, "periodSeconds": 1},
            "volumeMounts": mounts,
            "securityContext": restricted,
        }
        labels = {"app": name}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "automountServiceAccountToken": False,
                        "initContainers": [fetch],
                        "containers": [server],
                        "volumes": [{"name": "models", "emptyDir": {}}],
                    },
                },
            },
        }

    def service(self, name: str) -> Json:
        """What brings readers to a target, on a port of its own."""
        spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8000}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    def env_of(self, deployment: str) -> dict[str, str]:
        """MODEL_ variables in the target's template."""
        pod = self.get("deployment", deployment)["spec"]["template"]["spec"]
        entries = [entry for c in (*pod["initContainers"], *pod["containers"]) for entry in c.get("env", [])]
        return {entry["name"]: entry["value"] for entry in entries if entry["name"].startswith("MODEL_")}


def on_a_gpu(stand: Stand, name: str, seconds: int, **budget: float) -> Json:
    """A run whose GPU stages hold a GPU; its training takes so long."""
    run = stand.run(name, train_seconds=seconds)
    run["spec"]["resources"]["train"]["gpu"] = {"resourceName": GPU}
    run["spec"]["policy"] = {"budget": budget}
    return run


def training(status: Json) -> bool:
    """A step of the training has been told."""
    progress = status.get("progress") or {}
    return progress.get("stage") == "train" and progress.get("step", 0) >= 1


def attempts_of(status: Json, stage: str) -> list[str]:
    """How each of them ended."""
    return [attempt["result"] for attempt in status["attempts"] if attempt["stage"] == stage]


def rollout_to(deployment: str, questions: int = 0) -> Json:
    """With so many questions in the smoke test; without one, it is the rollout itself that meets a bad model."""
    target = {"deployment": {"name": deployment}}
    return {"mode": "Automatic", "target": target, "smokeTest": {"questions": questions}}


@contextlib.contextmanager
def standing(cluster: Access, instance: Instance, folder: Path) -> Iterator[Stand]:
    stand = Stand(cluster, instance, folder)
    stand.set_up()
    try:
        yield stand
    finally:
        stand.tear_down()


@contextlib.contextmanager
def stand_at_work(cluster: Access, folders: pytest.TempPathFactory) -> Iterator[Stand]:
    """With the stand-in of the trainer on the node, and the operator at work."""
    instance = Instance(cluster.kubeconfig.parent.name)
    load_trainer(instance, folders.mktemp("trainer"))
    with standing(cluster, instance, folders.mktemp("operator")) as stand:
        stand.start_operator()
        yield stand
