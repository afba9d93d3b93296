"""A Hugging Face of one model on a local port: commits, large files, gates, and connections that break."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

COMMIT = "c" * 40
REPOSITORY = "google/gemma-2-2b"
_INFO = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/revision/(\S+)")
_FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(\S+)")


@dataclass
class FakeHub:
    """Its attributes may be changed between two requests."""

    server: HTTPServer
    files: dict[str, bytes] = field(
        default_factory=lambda: {
            "config.json": b'{"model_type": "tiny"}',
            "model.safetensors": b"weights" * 1000,
            "tokenizer.json": b"{}",
            "tokenizer.py": b"code",
            "pytorch_model.bin": b"pickle",
            "README.md": b"words",
            "onnx/model.onnx": b"other",
        }
    )
    licence: str = "gemma"
    readers: set[str] | None = None
    """Tokens whose accounts have accepted the licence; None when everybody may read."""
    gate_words: str = "Access to model google/gemma-2-2b is restricted."
    known_tokens: set[str] = field(default_factory=lambda: {"hf_good", "hf_other"})
    refusals: dict[str, Response] = field(default_factory=dict)
    """Answers in the place of its own, by the beginning of the path."""
    break_after: dict[str, list[int]] = field(default_factory=dict)
    """By file: the next download of it ends after so many bytes."""
    served: dict[str, list[bytes]] = field(default_factory=dict)
    """By file: another content, for its next downloads."""
    downloads: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.expect_request(re.compile(".*")).respond_with_handler(self.answer)

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    def answer(self, request: Request) -> Response:
        for beginning, refusal in self.refusals.items():
            if request.path.startswith(beginning):
                return refusal
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if (found := _INFO.fullmatch(request.path)) is not None:
            self.tokens.append(token)
            self.looked_up.append(found[2])
            return self._refuse_token(token) or self._info(found[1], found[2])
        if (found := _FILE.fullmatch(request.path)) is not None and found[1] == REPOSITORY:
            return self._refuse_token(token) or self._gate(token) or self._file(request, found[3])
        return Response("{}", status=404, mimetype="application/json")

    def _refuse_token(self, token: str) -> Response | None:
        if not token or token in self.known_tokens:
            return None
        return Response(
            status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}
        )

    def _gate(self, token: str) -> Response | None:
        if self.readers is None or token in self.readers:
            return None
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": self.gate_words}
        return Response(status=403 if token else 401, headers=headers)

    def _info(self, repository: str, revision: str) -> Response:
        if repository != REPOSITORY:
            return Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        if revision not in {"main", COMMIT}:
            return Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        body = {
            "id": repository,
            "sha": COMMIT,
            "cardData": {"license": self.licence},
            "siblings": [self._sibling(name, content) for name, content in self.files.items()],
        }
        return Response(json.dumps(body), mimetype="application/json")

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": self._etag(name)}
        if _is_large(name):
            lfs = {"sha256": self._etag(name), "size": len(content), "pointerSize": 130}
            entry |= {"blobId": "1" * 40, "lfs": lfs}
        return entry

    def _etag(self, name: str) -> str:
        content = self.files[name]
        if _is_large(name):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def _file(self, request: Request, name: str) -> Response:
        content = self.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{self._etag(name)}"'}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(content))})
        self.downloads.append(name)
        if self.served.get(name):
            content = self.served[name].pop(0)
        start = 0
        if (asked := request.headers.get("Range")) is not None:
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        headers["Content-Length"] = str(len(rest))
        if self.break_after.get(name):
            rest = rest[: self.break_after[name].pop(0)]
        return Response(iter([rest]), status=206 if start else 200, headers=headers)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))
