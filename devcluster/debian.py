"""Debian and Ubuntu packages: installed only when missing, without the services that some of them would start."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from devcluster.commands import run
from devcluster.errors import CommandFailed, DevclusterError
from devcluster.progress import Progress

NODE = (
    "runc",
    "containernetworking-plugins",
    "iptables",
    "conntrack",
    "iproute2",
    "openssl",
    "util-linux",
    "mount",
)
# The -core package is the database without a service and without a user. php-cgi and micro-httpd only satisfy what
# WordPress asks for (`php`, a web server): otherwise Apache would come along.
WORDPRESS = (
    "wordpress",
    "micro-httpd",
    "php",
    "php-cgi",
    "php-cli",
    "php-mysql",
    "php-mbstring",
    "php-xml",
    "php-curl",
    "php-gd",
    "mariadb-server-core",
    "mariadb-client",
)
# The first that the distribution has: without a theme the front page is empty.
WORDPRESS_THEMES = (
    "wordpress-theme-twentytwentythree",
    "wordpress-theme-twentytwentyfour",
    "wordpress-theme-twentytwentytwo",
)


def ensure(packages: Sequence[str], progress: Progress, part: str) -> None:
    """Installs those of the packages that are missing.

    Raises:
        DevclusterError: this is no Debian, or packages are missing and there is no way to become root.
    """
    missing = [name for name in packages if not is_installed(name)]
    if not missing:
        return
    apt = [
        *_root_prefix(missing),
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]
    install = [*apt, "install", "--yes", "--no-install-recommends", *missing]
    with progress.step(part, f"install {len(missing)} Debian packages: {' '.join(missing)}"):
        try:
            run(install, timeout_seconds=1800)
        except CommandFailed:  # the package lists of a fresh machine are empty or old
            run([*apt, "update"], timeout_seconds=600)
            run(install, timeout_seconds=1800)


def first_available(candidates: Sequence[str]) -> str:
    """The first of the packages that is installed or can be."""
    for name in candidates:
        if is_installed(name):
            return name
    for name in candidates:
        known = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if known.returncode == 0:
            return name
    return candidates[0]


def is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        raise DevclusterError(
            "this machine has no dpkg: the development cluster takes runc, the CNI plugins, MariaDB, PHP and WordPress "
            "from Debian or Ubuntu. Elsewhere, give the demo a cluster of your own by KUBECONFIG"
        )
    found = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() == "installed"


def _root_prefix(missing: Sequence[str]) -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise DevclusterError(f"Debian packages are missing; as root: apt-get install {' '.join(missing)}")
