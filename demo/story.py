"""`make demo`, `demo-retrain`, `demo-status`, `demo-down`: the steps in the order in which they are told.

Each step looks first whether it is done already, so that a broken-off demo goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from demo import asking, knowledge_base, manifests, untuned_model
from demo.cluster import Cluster
from demo.errors import DemoError
from demo.parts import Setting
from demo.questions import Answer, Retrain, demo_questions, retrain_story
from demo.runs import condition, follow, is_ended, jobs_of
from devcluster import lifecycle, wordpress
from devcluster.images import source_digest as images_source_digest
from devcluster.paths import REPOSITORY
from devcluster.progress import Progress
from finetune_trainer.run_settings import with_settings

CHART = REPOSITORY / "charts" / "finetune-operator"
QUICKSTART = REPOSITORY / "examples" / "quickstart"
OPERATOR_NAMESPACE = "finetune-system"
DEPLOYMENT = "chat"
RUN_TIMEOUT_SECONDS = 45 * 60
SOURCE_ANNOTATION = "source-digest"
"""The images keep the tag `dev` when this clone's code changes; this makes the pods new nevertheless."""


class Story:
    """One demo in one setting.

    Args:
        run_settings: `path=value` below the quickstart run's spec, as for `finetune run --set`.
    """

    def __init__(
        self, setting: Setting, progress: Progress, console: Console, run_settings: Sequence[str] = ()
    ) -> None:
        self.setting = setting
        self.progress = progress
        self.console = console
        self.run_settings = list(run_settings)

    def up(self) -> None:
        """From nothing to answers side by side."""
        self.setting.begin_builds(self.progress)
        with ThreadPoolExecutor(1) as beside:
            packaged = beside.submit(untuned_model.package, self.progress)
            self.setting.bring_up(self.progress)
        cluster, environment = self.setting.cluster(), self.setting.environment()
        with self.progress.step("cluster", "namespace, Secrets and names of the parts"):
            cluster.apply(
                [
                    manifests.namespace(),
                    *manifests.secrets(environment),
                    *manifests.services(environment["NODE_IP"]),
                ]
            )
        with ThreadPoolExecutor(2) as beside:
            filled = beside.submit(self._fill_knowledge_base)
            uploaded = beside.submit(untuned_model.upload, packaged.result(), environment, self.progress)
            self._install_operator(cluster)
            model = uploaded.result()
            with self.progress.step("site", "deploy the Django site with the untuned model"):
                self._deploy_chat(cluster, model)
            filled.result()
        run = self._quickstart_run()
        with ThreadPoolExecutor(1) as beside:  # the untuned model is asked while the run reads the posts
            asked = beside.submit(self._ask_once, cluster, "before")
            self._start(cluster, run)
            ended = follow(cluster, run["metadata"]["name"], self.progress, RUN_TIMEOUT_SECONDS)
            before = asked.result()
        self._wait_for_site(cluster)
        after = self._ask(cluster)
        asking.keep(after, self._answers_file("after"))
        asking.side_by_side(demo_questions(), before, after, self.console)
        self._where_to_look(ended)

    def retrain(self) -> None:
        """One post changes, a new run follows, the new fact is answered; the same run again trains nothing."""
        story, cluster = retrain_story(), self.setting.cluster()
        first = self._quickstart_run()
        if cluster.get("finetunerun", first["metadata"]["name"], "-n", manifests.NAMESPACE) is None:
            raise DemoError("there is no finished demo to retrain; run `make demo` first")
        before = self._ask_story(cluster, story)
        self._change_post(story)
        second = {**first, "metadata": {**first["metadata"], "name": f"{first['metadata']['name']}-2"}}
        with self.progress.step("run", f"a new run, {second['metadata']['name']}, for the changed post"):
            cluster.apply([second])
        follow(cluster, second["metadata"]["name"], self.progress, RUN_TIMEOUT_SECONDS)
        self._wait_for_site(cluster)
        after = self._ask_story(cluster, story)
        asking.side_by_side([story.question], [before], [after], self.console, models=("old", "new"))
        self._same_run_again(cluster, second)

    def status(self) -> None:
        """Parts, runs and addresses."""
        for part in lifecycle.status(self.setting.instance):
            self.console.print(
                f"{part.part:<10} {'runs at ' + part.address if part.running else 'does not run'}"
            )
        cluster = self.setting.cluster()
        runs = cluster.kubectl("get", "finetuneruns", "-A", check=False)
        self.console.print(runs.strip() or "no FineTuneRun, or no cluster")
        self._where_to_look(None)

    def down(self) -> int:
        """End everything that the demo started; on the user's own cluster remove what the demo put there."""
        if self.setting.kubeconfig is not None:
            cluster = self.setting.cluster()
            with self.progress.step("down", "remove release and namespaces from the cluster of KUBECONFIG"):
                cluster.helm("uninstall", "finetune-operator", "-n", OPERATOR_NAMESPACE, "--ignore-not-found")
                crds = [f"{kind}.finetune-operator.io" for kind in ("finetuneruns", "finetuneschedules")]
                cluster.kubectl("delete", "crd", *crds, "--ignore-not-found")
                cluster.kubectl(
                    "delete", "namespace", manifests.NAMESPACE, OPERATOR_NAMESPACE, "--ignore-not-found"
                )
        left = lifecycle.down(self.setting.instance, self.progress, wipe=True)
        for what in left:
            print(f"demo: still there: {what}", file=sys.stderr)
        return 1 if left else 0

    def _install_operator(self, cluster: Cluster) -> None:
        images = self.setting.images
        with self.progress.step(
            "operator", f"helm upgrade --install finetune-operator {CHART.relative_to(REPOSITORY)}"
        ):
            cluster.helm(
                "upgrade",
                "--install",
                "finetune-operator",
                str(CHART),
                "--namespace",
                OPERATOR_NAMESPACE,
                "--create-namespace",
                "--wait",
                "--timeout",
                "3m",
                "--set",
                f"image.repository={images.repository('operator')},image.tag={images.tag}",
                "--set",
                f"trainerImage.repository={images.repository('trainer')},trainerImage.tag={images.tag}",
                "--set",
                f"watch.namespaces={{{manifests.NAMESPACE}}},crds.keep=false",
                "--set-string",
                f"podAnnotations.{SOURCE_ANNOTATION}={images_source_digest()[:16]}",
            )

    def _deploy_chat(self, cluster: Cluster, model: untuned_model.ServableModel) -> None:
        """The Deployment begins paused, so that its first pod has a model already."""
        chat = self._chat()
        if cluster.get("deployment", DEPLOYMENT, "-n", manifests.NAMESPACE) is None:
            cluster.apply([_paused(manifest) for manifest in chat])
        untuned_model.serve(cluster, DEPLOYMENT, model)
        cluster.apply(chat)
        self._wait_for_site(cluster)

    def _chat(self) -> list[dict[str, Any]]:
        text = (QUICKSTART / "chat.yaml").read_text()
        images = self.setting.images
        for part in ("serving", "django"):
            text = text.replace(f"localhost/finetune-{part}:dev", images.image(part))
        documents = [document for document in yaml.safe_load_all(text) if document]
        for document in documents:
            if document["kind"] == "Deployment":
                annotations = document["spec"]["template"]["metadata"].setdefault("annotations", {})
                annotations[SOURCE_ANNOTATION] = images_source_digest()[:16]
        return documents

    def _quickstart_run(self) -> dict[str, Any]:
        return with_settings((QUICKSTART / "finetunerun.yaml").read_text(), self.run_settings)

    def _start(self, cluster: Cluster, run: dict[str, Any]) -> None:
        """Apply the run. One that an earlier call left failed is deleted first: a spec cannot be changed."""
        name, file = run["metadata"]["name"], (QUICKSTART / "finetunerun.yaml").relative_to(REPOSITORY)
        found = cluster.get("finetunerun", name, "-n", manifests.NAMESPACE)
        if found is not None and is_ended(found) and condition(found, "Ready").get("status") != "True":
            with self.progress.step("run", f"delete {name}, which ended as {found['status']['phase']}"):
                cluster.kubectl("delete", "finetunerun", name, "-n", manifests.NAMESPACE, "--wait")
        with self.progress.step("run", f"kubectl apply -f {file}"):
            cluster.apply([run])

    def _wait_for_site(self, cluster: Cluster) -> None:
        cluster.kubectl(
            "rollout", "status", f"deployment/{DEPLOYMENT}", "-n", manifests.NAMESPACE, "--timeout=300s"
        )

    def _fill_knowledge_base(self) -> None:
        """The untuned model shall be asked fairly: with the same posts to read."""
        knowledge_base.fill(self.setting.environment(), self._quickstart_run(), self.progress)

    @contextmanager
    def _site(self, cluster: Cluster) -> Iterator[str]:
        if self.setting.kubeconfig is None:
            yield self._site_address()
            return
        with cluster.port_forward(f"service/{DEPLOYMENT}", 80, manifests.NAMESPACE) as address:
            yield address

    def _site_address(self) -> str:
        return f"http://{self.setting.instance.node_ip}:{manifests.SITE_NODE_PORT}"

    def _ask(self, cluster: Cluster) -> list[Answer]:
        with self._site(cluster) as site, self.progress.step("ask", f"five questions to {site}"):
            return asking.ask_all(site, demo_questions())

    def _ask_once(self, cluster: Cluster, when: str) -> list[Answer]:
        path = self._answers_file(when)
        answers = asking.kept(path)
        if answers is None:
            answers = self._ask(cluster)
            asking.keep(answers, path)
        return answers

    def _ask_story(self, cluster: Cluster, story: Retrain) -> Answer:
        with self._site(cluster) as site:
            return asking.ask(site, story.question.question)

    def _answers_file(self, when: str) -> Path:
        return self.setting.instance.state / f"answers-{when}.json"

    def _change_post(self, story: Retrain) -> None:
        site = lifecycle.found_wordpress(self.setting.instance)
        with self.progress.step("wordpress", f"{story.slug}: {story.old!r} becomes {story.new!r}"):
            wordpress.set_post(site, story.slug, story.old, story.new)

    def _same_run_again(self, cluster: Cluster, run: dict[str, Any]) -> None:
        name = run["metadata"]["name"]
        with self.progress.step("run", f"delete {name} and apply it again: nothing is to be trained"):
            cluster.kubectl("delete", "finetunerun", name, "-n", manifests.NAMESPACE, "--wait")
            cluster.apply([run])
        ended = follow(cluster, name, self.progress, 600)
        trained = [job for job in jobs_of(cluster, name) if "-train-" in job]
        if trained or not ended["status"].get("adopted"):
            raise DemoError(
                f"finetunerun/{name} trained again ({', '.join(trained)}); that is a fault: report it"
            )
        self.progress.say(
            "run", f"{name} found its finished model under run key {ended['status']['runKey'][:12]}…"
        )

    def _where_to_look(self, run: dict[str, Any] | None) -> None:
        site = lifecycle.found_wordpress(self.setting.instance)
        lines = [
            "",
            "Where to look next",
            f"  chat page    {self._site_address()}/"
            if self.setting.kubeconfig is None
            else f"  chat page    kubectl -n {manifests.NAMESPACE} port-forward svc/{DEPLOYMENT} 8000:80",
            f"  WordPress    {site.url}/   (wp-admin: admin, password in `python -m devcluster env`)",
        ]
        if run is not None:
            lines.append(f"  report       {run['status']['evaluation']['reportUri']}")
        lines += [
            '  a shell      eval "$(.venv/bin/python -m devcluster env)"',
            f"               kubectl describe ftr -n {manifests.NAMESPACE}",
            "  next         make demo-retrain; make demo-down",
        ]
        self.console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _paused(manifest: dict[str, Any]) -> dict[str, Any]:
    if manifest["kind"] != "Deployment":
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "paused": True}}
