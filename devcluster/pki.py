"""The certificates and kubeconfig files of one node, made with the openssl program. Knows no running part."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devcluster.commands import run

_DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """One certificate to make.

    Args:
        name: the file's name without its ending.
        subject: as openssl writes it; /O= is the Kubernetes group, /CN= the user.
        authority: which authority signs it.
        alternative_names: what a client may call a server by, as openssl writes it.
    """

    name: str
    subject: str
    authority: str = "ca"
    alternative_names: Sequence[str] = ()


def node_certificates(node_ip: str, service_ip: str) -> tuple[Certificate, ...]:
    """All certificates that a single node needs."""
    api_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    local = ("DNS:localhost", "IP:127.0.0.1")
    return (
        Certificate(
            "apiserver",
            "/CN=kube-apiserver",
            alternative_names=(
                *(f"DNS:{name}" for name in api_names),
                *local,
                f"IP:{service_ip}",
                f"IP:{node_ip}",
            ),
        ),
        Certificate("apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        Certificate("front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca"),
        Certificate("admin", "/O=system:masters/CN=admin"),
        Certificate("controller-manager", "/CN=system:kube-controller-manager", alternative_names=local),
        Certificate("scheduler", "/CN=system:kube-scheduler", alternative_names=local),
        Certificate("proxy", "/CN=system:kube-proxy"),
        Certificate(
            "kubelet", "/O=system:nodes/CN=system:node:node", alternative_names=("DNS:node", f"IP:{node_ip}")
        ),
    )


def make_all(folder: Path, certificates: Sequence[Certificate]) -> None:
    """Makes what is missing; a file that is there is never changed, so that running parts keep trusting each other."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for authority in ("ca", "front-proxy-ca"):
        _make_authority(folder, authority)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda certificate: _sign(folder, certificate), certificates))
    if not (folder / "service-account.pub").exists():
        run(["openssl", "genrsa", "-out", folder / "service-account.key", "2048"])
        _finish(
            folder / "service-account.pub",
            ["openssl", "rsa", "-in", str(folder / "service-account.key"), "-pubout", "-out"],
        )


def kubeconfig(folder: Path, user: str, server: str) -> str:
    """A kubeconfig that carries the user's certificate and key in itself."""

    def inline(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return f"""apiVersion: v1
kind: Config
clusters:
- name: devcluster
  cluster: {{server: "{server}", certificate-authority-data: {inline("ca.crt")}}}
users:
- name: {user}
  user: {{client-certificate-data: {inline(user + ".crt")}, client-key-data: {inline(user + ".key")}}}
contexts:
- name: devcluster
  context: {{cluster: devcluster, user: {user}}}
current-context: devcluster
"""


def _make_authority(folder: Path, name: str) -> None:
    if (folder / f"{name}.crt").exists():
        return
    usage = [
        "-addext",
        "basicConstraints=critical,CA:true",
        "-addext",
        "keyUsage=critical,keyCertSign,digitalSignature",
    ]
    key = ["-keyout", str(folder / f"{name}.key")]
    _finish(
        folder / f"{name}.crt",
        ["openssl", "req", "-x509", *_NEW_KEY, "-days", _DAYS, "-subj", f"/CN={name}", *usage, *key, "-out"],
    )


def _sign(folder: Path, certificate: Certificate) -> None:
    name = certificate.name
    if (folder / f"{name}.crt").exists():
        return
    extensions = [
        "basicConstraints=CA:false",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    if certificate.alternative_names:
        extensions.append("subjectAltName=" + ",".join(certificate.alternative_names))
    wish, facts = folder / f"{name}.csr", folder / f"{name}.ext"
    facts.write_text("\n".join(extensions) + "\n")
    key = folder / f"{name}.key"
    run(["openssl", "req", *_NEW_KEY, "-subj", certificate.subject, "-keyout", key, "-out", wish])
    signer = [
        "-CA",
        str(folder / f"{certificate.authority}.crt"),
        "-CAkey",
        str(folder / f"{certificate.authority}.key"),
    ]
    _finish(
        folder / f"{name}.crt",
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            str(wish),
            *signer,
            "-days",
            _DAYS,
            "-extfile",
            str(facts),
            "-out",
        ],
    )
    wish.unlink()
    facts.unlink()


def _finish(result: Path, argv_up_to_result: list[str]) -> None:
    """Lets the result appear whole or not at all."""
    unfinished = result.with_suffix(".unfinished")
    run([*argv_up_to_result, unfinished])
    unfinished.rename(result)
