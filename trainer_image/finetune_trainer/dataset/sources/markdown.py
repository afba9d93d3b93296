"""Markdown files with front matter, from a folder or an S3 prefix.

Every `.md` and `.markdown` file becomes a document or is dropped with a reason. Must not know S3's client.
"""

from __future__ import annotations

import html
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from finetune_contract.run_spec import MarkdownSource, S3StoreSpec, SourceSpec
from finetune_contract.secret_text import without_margins
from finetune_contract.stage_protocol import markdown_access_key_env, markdown_secret_key_env
from finetune_trainer.dataset.on_disk import NamelessFile, Place, ReadOnDemand
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.markdown_file import (
    MarkdownFile,
    UnreadableFile,
    parse_file,
    with_absolute_links,
)
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.errors import (
    InvalidRun,
    SourceRejected,
    SourceUnavailable,
    StoreRejected,
    StoreUnavailable,
)
from finetune_trainer.run_log import Progress
from finetune_trainer.stores.s3 import S3Store

logger = logging.getLogger(__name__)

ENDINGS = (".md", ".markdown")
MAX_FILE_BYTES = 10 << 20


class Files(Protocol):
    """Where the files lie."""

    def paths(self) -> list[str]:
        """Paths of all files, with slashes, sorted."""

    def read(self, path: str) -> bytes:
        """One file. Raises UnreadableFile when it cannot be read."""


def open_markdown(
    spec: SourceSpec,
    environment: Mapping[str, str],
    credentials_required: bool,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> MarkdownReader:
    """A reader for a source of kind Markdown; opens no connection.

    Raises:
        SourceRejected: the spec names credentials, `credentials_required`, and they are not in the environment.
    """
    if spec.markdown is None:
        raise InvalidRun(f"spec.dataset.sources[{spec.name}].markdown: is not set")
    place = f"spec.dataset.sources[{spec.name}].markdown"
    if spec.markdown.folder is not None:
        files: Files = Folder(Path(spec.markdown.folder), f"{place}.folder", on_cluster=credentials_required)
    elif spec.markdown.s3 is not None:
        keys = _keys(spec.name, spec.markdown.s3, place, environment, credentials_required)
        files = Bucket(spec.markdown.s3, f"{place}.s3", keys)
    else:
        raise InvalidRun(f"{place}: has neither folder nor s3; set exactly one of folder, s3")
    return MarkdownReader(spec.name, spec.markdown, files, place, now)


def _keys(
    name: str, spec: S3StoreSpec, place: str, environment: Mapping[str, str], required: bool
) -> tuple[str, str] | None:
    """The key of the source's own Secret; without one the environment's or the pod's identity is used."""
    if spec.credentials_secret_ref is None:
        return None
    variables = (markdown_access_key_env(name), markdown_secret_key_env(name))
    access, secret = (without_margins(environment.get(variable, "")) for variable in variables)
    if access and secret:
        return access, secret
    if required or access or secret:
        raise SourceRejected(
            f"{place}.s3.credentialsSecretRef: the Secret {spec.credentials_secret_ref.name} must have the keys "
            f"accessKeyId and secretAccessKey, neither empty (they reach the stage as {' and '.join(variables)})"
        )
    return None


class Folder:
    """Files below a folder; symbolic links that lead out of it are not followed."""

    def __init__(self, folder: Path, place: str, on_cluster: bool) -> None:
        self._folder = folder
        self._place = place
        self._on_cluster = on_cluster

    def paths(self) -> list[str]:
        if not self._folder.is_dir():
            remedy = (
                "in a Job this is a folder of the trainer image: put it there, or use s3"
                if self._on_cluster
                else "correct the path"
            )
            raise SourceRejected(f"{self._place}: {self._folder} is no folder; {remedy}")
        found: list[str] = []
        for parent, folders, names in os.walk(self._folder, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                (Path(parent) / name).relative_to(self._folder).as_posix()
                for name in names
                if name.lower().endswith(ENDINGS) and not name.startswith(".")
            ]
        return sorted(found)

    def read(self, path: str) -> bytes:
        file = self._folder / path
        try:
            if not file.resolve().is_relative_to(self._folder.resolve()):
                raise UnreadableFile(f"{path}: is a link that leads out of the folder")
            if file.stat().st_size > MAX_FILE_BYTES:
                raise UnreadableFile(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB")
            return file.read_bytes()
        except OSError as error:
            raise UnreadableFile(f"{path}: cannot be read ({error.strerror})") from error

    def _refuse(self, error: OSError) -> None:
        raise SourceRejected(
            f"{self._place}: {error.filename} cannot be read ({error.strerror}); let the stage's user read it"
        ) from error


class Bucket:
    """Objects below a prefix."""

    def __init__(self, spec: S3StoreSpec, place: str, keys: tuple[str, str] | None) -> None:
        self._spec = spec
        self._place = place
        self._keys = keys
        self._opened: S3Store | None = None

    def paths(self) -> list[str]:
        with self._errors():
            return [
                path
                for path in self._store().list("")
                if path.lower().endswith(ENDINGS)
                and not any(part.startswith(".") for part in path.split("/"))
            ]

    def read(self, path: str) -> bytes:
        with self._errors():
            content = self._store().read(path)
        if content is None:
            raise UnreadableFile(f"{path}: has gone since the prefix was listed")
        if len(content) > MAX_FILE_BYTES:
            raise UnreadableFile(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB")
        return content

    def _store(self) -> S3Store:
        if self._opened is None:
            self._opened = S3Store.to_read(self._spec, self._place, self._keys)
        return self._opened

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StoreRejected as error:
            raise SourceRejected(f"{self._place}: {error}") from error
        except StoreUnavailable as error:
            raise SourceUnavailable(
                f"{self._place}: {error}; check the endpoint and that the server is up"
            ) from error


class MarkdownReader:
    """One folder or prefix."""

    def __init__(
        self, name: str, spec: MarkdownSource, files: Files, place: str, now: Callable[[], datetime]
    ) -> None:
        self._name, self._spec, self._files, self._place, self._now = name, spec, files, place, now
        self._folder: Path | None = None

    def check(self) -> None:
        """Prove that the folder or prefix can be read and holds Markdown."""
        paths = self._files.paths()
        if not paths:
            raise SourceRejected(
                f"{self._place}: {self._where()} holds no file that ends in {' or '.join(ENDINGS)}; correct the path"
            )
        try:
            self._files.read(paths[0])
        except UnreadableFile as error:
            logger.warning("a file is left out: source=%s fact=%s", self._name, error)

    def remember_in(self, memory: HarvestMemory) -> None:
        """Nothing is remembered; documents lie in its scratch folder while a run needs them."""
        self._folder = memory.folder

    def read(self, progress: Progress) -> Harvest:
        """Every file that is published, by its path; of several with one address the first."""
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        documents = Documents(self._name, self._spec.base_url, self._folder)
        dropped: list[DroppedDocument] = []
        paths = self._files.paths()
        for number, path in enumerate(paths, start=1):
            try:
                file = parse_file(path, self._files.read(path), self._spec.base_url, now)
            except UnreadableFile as error:
                dropped.append(DroppedDocument(self._name, path, "", str(error)))
            else:
                if file.hidden:
                    dropped.append(DroppedDocument(self._name, path, file.url, file.hidden))
                elif other := documents.put(file):
                    dropped.append(
                        DroppedDocument(
                            self._name, path, file.url, f"has the address of {other}; rename one of them"
                        )
                    )
            progress(number, len(paths), message=f"reading {self._name}")
        logger.info(
            "Markdown read: source=%s documents=%d dropped=%d", self._name, len(documents), len(dropped)
        )
        return Harvest(documents, tuple(dropped))

    def _where(self) -> str:
        if self._spec.s3 is not None:
            return f"s3://{self._spec.s3.bucket}/{self._spec.s3.prefix}"
        return str(self._spec.folder)


class Documents(ReadOnDemand[RawDocument]):
    """The files that are published, on disk; links between them are made absolute when one is asked for."""

    def __init__(self, source: str, base_url: str, folder: Path | None) -> None:
        self._source, self._base_url = source, base_url
        self._file = NamelessFile(folder)
        self._places: list[Place] = []
        self._published: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def put(self, file: MarkdownFile) -> str:
        """Write one more; not one with the address of another, whose path is given back then."""
        self._published[file.path] = file.url
        other = self._paths.setdefault(file.url, file.path)
        if other != file.path:
            return other
        self._places.append(self._file.append(json.dumps(asdict(file)).encode()))
        return ""

    def __len__(self) -> int:
        return len(self._places)

    def _at(self, index: int) -> RawDocument:
        values = json.loads(self._file.read(self._places[index]))
        names = {name: tuple(values[name]) for name in ("categories", "tags")}
        file = with_absolute_links(MarkdownFile(**values | names), self._base_url, self._published)
        return RawDocument(
            source=self._source,
            post_id=file.path,
            title_html=html.escape(file.title, quote=False),
            excerpt_html=html.escape(file.excerpt, quote=False),
            content_html=file.body,
            date=file.date,
            author=file.author,
            categories=file.categories,
            tags=file.tags,
            url=file.url,
            is_markdown=True,
        )
