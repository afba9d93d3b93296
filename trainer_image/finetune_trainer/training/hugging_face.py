"""A base model of Hugging Face: its commit, and its copy in the store, which all later stages and runs share.

Must not know huggingface_hub.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind, FileEntry, Manifest
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import BaseModelRejected, Preempted
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.base_model_files import (
    FIELD,
    ResolvedBaseModel,
    check_is_safe,
    files_of,
    is_wanted,
    licence_of,
)
from finetune_trainer.training.hub_files import Hub, HubFile, HubModel
from finetune_trainer.training.shared_copy import SharedCopy
from finetune_trainer.training.weight_files import INDEX, with_one_set_of_weights

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_MIB, _GIB = 2**20, 2**30


def resolve(context: StageContext, uri: str) -> ResolvedBaseModel:
    """The model at a commit; copied into the store when it is not there. A commit that is there needs no internet."""
    repository, _, revision = uri.removeprefix("hf://").partition("@")
    owner, _, name = repository.partition("/")
    hub = Hub(context.environment)
    model: HubModel | None = None
    commit = revision
    if not _COMMIT.fullmatch(revision):
        model = hub.look_up(repository, revision or "main")
        commit = model.commit
    key = base_model_folder(owner, name, commit)
    manifest = read_manifest(context.store, key)
    if manifest is None:
        model = model or hub.look_up(repository, commit)
        check_is_safe(f"hf://{repository}@{commit}", [file.path for file in model.files])
        manifest = _Copying(context, hub, model, key).run()
    files = files_of(manifest)
    names = with_one_set_of_weights(
        context.store.uri(key), (file.path for file in files), lambda: context.store.read(f"{key}/{INDEX}")
    )
    return ResolvedBaseModel(
        uri=f"hf://{repository}@{commit}",
        digest=manifest.sha256(),
        licence=licence_of(manifest),
        files=tuple(file for file in files if file.path in names),
        download=lambda path, target: context.store.download(f"{key}/{path}", target),
    )


@dataclass(frozen=True)
class _Copying:
    """From Hugging Face through the cache of this machine into the store, file by file, the manifest last."""

    context: StageContext
    hub: Hub
    model: HubModel
    key: str

    def run(self) -> Manifest:
        """The manifest of the copy, whoever made it."""
        store, model = self.context.store, self.model
        copy = SharedCopy(store, self.key)
        copy.claim(self._wait)
        with copy.held():
            if (manifest := read_manifest(store, self.key)) is not None:
                return manifest
            manifest = Manifest(
                kind=ArtifactKind.BASE_MODEL,
                files=self._files(copy),
                facts={"uri": f"hf://{model.repository}@{model.commit}", "licence": model.licence},
            )
            store.write(f"{self.key}/{MANIFEST_NAME}", manifest.to_bytes())
        logger.info("base model stored: uri=%s bytes=%d", store.uri(self.key), manifest.size_bytes)
        return manifest

    def _files(self, copy: SharedCopy) -> list[FileEntry]:
        wanted = self._wanted()
        there = copy.files_there()
        total, done = max(1, sum(file.size for file in wanted) // _MIB), 0
        entries = []
        for file in wanted:
            if self.context.stop_requested():
                raise Preempted(
                    "told to stop while the base model was downloaded; the next attempt takes the files that are there"
                )
            self.context.progress(done // _MIB, total, message=f"downloading {self.model.repository} (MiB)")
            entry = there.get(file.path)
            if entry is None or entry.size != file.size or (file.sha256 and entry.sha256 != file.sha256):
                entry = self._copy(file)
                copy.add(entry)
            entries.append(entry)
            done += file.size
        return entries

    def _wanted(self) -> list[HubFile]:
        files = {file.path: file for file in self.model.files if is_wanted(file.path)}
        names = with_one_set_of_weights(
            f"hf://{self.model.repository}@{self.model.commit}",
            files,
            lambda: self.hub.download(self.model, files[INDEX])[0].read_bytes(),
        )
        return [files[name] for name in sorted(names)]

    def _copy(self, file: HubFile) -> FileEntry:
        self._check_room(file)
        path, sha256 = self.hub.download(self.model, file)
        self.context.store.upload(f"{self.key}/{file.path}", path)
        entry = FileEntry(path=file.path, size=path.stat().st_size, sha256=sha256)
        scratch = self.context.work_folder
        if self.hub.cache_folder.is_relative_to(scratch):  # it goes with the pod, and helps nobody else
            self.hub.forget(path)
        return entry

    def _check_room(self, file: HubFile) -> None:
        folder = self.hub.cache_folder
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < file.size:
            raise BaseModelRejected(
                f"{FIELD}: {file.path} of {self.model.repository} has {file.size / _GIB:.1f} GiB, {folder} has "
                f"{free / _GIB:.1f} GiB free; make room there, or raise spec.resources.other.scratch"
            )

    def _wait(self) -> None:
        if self.context.stop_requested():
            raise Preempted(
                "told to stop while another run downloads the base model; the next attempt goes on"
            )
        self.context.progress(message=f"waiting for another run that downloads {self.model.repository}")
