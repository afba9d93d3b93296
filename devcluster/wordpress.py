"""WordPress from Debian's packages with MariaDB, holding the sample site. Knows nothing of Kubernetes.

Two programs, `mariadb` and `wordpress` (PHP's own web server). The database listens on a socket in the state folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from devcluster import credentials, debian
from devcluster.commands import run
from devcluster.errors import DevclusterError
from devcluster.http_client import answers, basic_authorization, request_json
from devcluster.paths import PACKAGE, Instance
from devcluster.processes import Processes
from devcluster.progress import Progress
from devcluster.sample_content import SampleSite, read_site

PART = "wordpress"
PORT = 8091
USER = "trainer"
"""The WordPress user whose application password the operator's jobs read with."""

FORMS = {"plain": 8092, "index": 8093}
"""Permalinks of hosts without rewriting, `/?p=7` and `/index.php/NAME/`, each shown by a second server on this port."""

_PHP = PACKAGE / "php"
_DEBIANS_WORDPRESS = Path("/usr/share/wordpress")
_SERVICE_USER = "www-data"


@dataclass(frozen=True)
class WordPress:
    """Where one instance's WordPress lies and answers.

    Args:
        address: the IP address that it is reached at.
        listen: the IP address that it binds.
    """

    instance: Instance
    processes: Processes
    address: str
    listen: str

    @property
    def url(self) -> str:
        return address(self.address)

    @property
    def folder(self) -> Path:
        return self.instance.state / "wordpress"

    @property
    def document_root(self) -> Path:
        return self.folder / "site"

    @property
    def database_folder(self) -> Path:
        return self.folder / "database"

    @property
    def socket(self) -> Path:
        return self.database_folder / "socket"

    def is_up(self) -> bool:
        return self.processes.is_running("mariadb") and self.processes.is_running("wordpress")


def address(ip: str) -> str:
    """The site's address on that IP address."""
    return f"http://{ip}:{PORT}"


def packages() -> tuple[str, ...]:
    return (*debian.WORDPRESS, debian.first_available(debian.WORDPRESS_THEMES))


def up(site: WordPress, progress: Progress) -> None:
    """Starts WordPress with the sample site; leaves alone what already runs and is up to date."""
    content = read_site(site.url)
    seeded = site.folder / "seeded"
    wanted = content.digest + _php_digest()
    if site.is_up() and seeded.exists() and seeded.read_text() == wanted:
        progress.say(PART, f"already up at {site.url}")
        return
    debian.ensure(packages(), progress, PART)
    user = _service_user(site.folder)
    with progress.step(PART, "start MariaDB"):
        _start_database(site, user)
    if not (seeded.exists() and seeded.read_text() == wanted):
        _lay_out(site, user)
        with progress.step(PART, f"fill it with the sample site ({content.posts} posts and pages)"):
            counts = _seed(site, content, user)
        progress.say(PART, ", ".join(f"{count} {what}" for what, count in counts.items() if count))
        seeded.write_text(wanted)
    if not site.processes.is_running("wordpress"):
        with progress.step(PART, f"serve {site.url}"):
            _start_server(site, user)


def show_in_form(site: WordPress, form: str) -> str:
    """Serves the same site, from the same database, with permalinks of that form too. Returns its address."""
    url = f"http://{site.address}:{FORMS[form]}"
    if not site.processes.is_running(f"wordpress-{form}"):
        site.processes.start(
            f"wordpress-{form}",
            _php_server(site, FORMS[form]),
            env={"WORDPRESS_PERMALINKS": form, "WORDPRESS_HOME": url},
            user=_service_user(site.folder),
        )
    site.processes.wait_until(
        f"wordpress-{form}", lambda: answers(url + "/?rest_route=/"), "the REST API answered"
    )
    return url


def down(site: WordPress) -> None:
    for form in FORMS:
        site.processes.stop(f"wordpress-{form}")
    site.processes.stop("wordpress")
    site.processes.stop("mariadb", timeout_seconds=30)


def set_post(site: WordPress, slug: str, old: str, new: str) -> str:
    """Replaces words in one post or page through the REST API, as an editor would. Returns its link.

    Raises:
        DevclusterError: there is no such post, or it does not hold the old words.
    """
    authorization = basic_authorization(USER, credentials.load(site.instance).wordpress_application_password)
    for kind in ("posts", "pages"):
        route = f"{site.url}/wp-json/wp/v2/{kind}"
        found = request_json("GET", f"{route}?slug={quote(slug)}&context=edit", headers=authorization)
        if not found:
            continue
        text: str = found[0]["content"]["raw"]
        if old not in text:
            already = " (it already holds the new words)" if new in text else ""
            raise DevclusterError(f"{kind[:-1]} {slug!r} does not hold {old!r}{already}")
        changed = {"content": text.replace(old, new)}
        link: str = request_json("POST", f"{route}/{found[0]['id']}", headers=authorization, body=changed)[
            "link"
        ]
        return link
    raise DevclusterError(f"WordPress at {site.url} has no post or page with the slug {slug!r}")


def _service_user(folder: Path) -> str | None:
    """Who runs PHP and MariaDB: never root where it can be avoided.

    A clone below a private home folder cannot be entered by another user; there they run as whoever calls us.
    """
    if os.geteuid() != 0:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    enterable = all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))
    return _SERVICE_USER if enterable else None


def _own(path: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(path, user, user)


def _start_database(site: WordPress, user: str | None) -> None:
    if site.processes.is_running("mariadb"):
        return
    if not (site.database_folder / "installed").exists():
        shutil.rmtree(site.database_folder, ignore_errors=True)
        site.database_folder.mkdir(parents=True, mode=0o700)
        _own(site.database_folder, user)
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={site.database_folder}",
            "--skip-test-db",
        ]
        run([*install, "--auth-root-authentication-method=normal", *_mariadb_user(user)])
        (site.database_folder / "installed").touch()
    server = [_mariadbd(), "--no-defaults", f"--datadir={site.database_folder}", f"--socket={site.socket}"]
    small = [
        "--skip-log-bin",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
        "--performance-schema=off",
    ]
    fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
    pid_file = f"--pid-file={site.database_folder / 'pid'}"
    site.processes.start(
        "mariadb", [*server, pid_file, "--skip-networking", *small, *fast, *_mariadb_user(user)]
    )
    site.processes.wait_until("mariadb", lambda: _database_answers(site), "the database answered")


def _mariadb_user(user: str | None) -> list[str]:
    """MariaDB drops root by itself, and refuses to stay root unless told to."""
    if user is not None:
        return [f"--user={user}"]
    return ["--user=root"] if os.geteuid() == 0 else []


def _database_answers(site: WordPress) -> bool:
    try:
        run(
            ["mariadb-admin", "--no-defaults", f"--socket={site.socket}", "--user=root", "ping"],
            timeout_seconds=10,
        )
        return True
    except DevclusterError:
        return False


def _mariadbd() -> str:
    found = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise DevclusterError("mariadbd is not installed: apt-get install mariadb-server-core")
    return found


def _lay_out(site: WordPress, user: str | None) -> None:
    """Copies WordPress, because it writes into its own folder, and writes the settings that it reads."""
    if not (site.document_root / "wp-includes" / "version.php").exists():
        unfinished = site.folder / "site.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        # Debian keeps parts of it (jQuery, fonts, the theme) elsewhere, behind links, some of which lead nowhere.
        ignored = shutil.ignore_patterns(".htaccess", "wp-config.php")
        shutil.copytree(_DEBIANS_WORDPRESS, unfinished, ignore=ignored, ignore_dangling_symlinks=True)
        unfinished.rename(site.document_root)
    shutil.copy(_PHP / "wp-config.php", site.document_root / "wp-config.php")
    uploads = site.document_root / "wp-content" / "uploads"
    uploads.mkdir(exist_ok=True)
    _own(uploads, user)

    path = site.folder / "settings.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    settings.setdefault("database_password", secrets.token_hex(16))
    settings.setdefault("salt", secrets.token_hex(32))
    settings |= {"home": site.url, "database_socket": str(site.socket)}
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(settings, file, indent=1)
    _own(path, user)
    run(
        ["mariadb", "--no-defaults", f"--socket={site.socket}", "--user=root"],
        text_input="CREATE DATABASE IF NOT EXISTS wordpress CHARACTER SET utf8mb4;"
        f"CREATE OR REPLACE USER wordpress@localhost IDENTIFIED BY '{settings['database_password']}';"
        "GRANT ALL ON wordpress.* TO wordpress@localhost;",
    )


def _seed(site: WordPress, content: SampleSite, user: str | None) -> dict[str, int]:
    secret = credentials.load(site.instance)
    seed = content.seed | {
        "theme": debian.first_available(debian.WORDPRESS_THEMES).removeprefix("wordpress-theme-"),
        "admin_password": secret.wordpress_admin_password,
        "new_application_password": not secret.wordpress_application_password,
    }
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
    printed = run([*as_user, "php", _PHP / "seed.php", site.document_root], text_input=json.dumps(seed))
    result = json.loads(printed.splitlines()[-1])
    password = result.pop("application_password", None)
    if password is not None:
        credentials.keep_application_password(site.instance, password)
    counts: dict[str, int] = result
    return counts


def _start_server(site: WordPress, user: str | None) -> None:
    if answers(site.url + "/wp-json/"):
        raise DevclusterError(f"another program already answers at {site.url}: end it first")
    site.processes.start("wordpress", _php_server(site, PORT), env={"PHP_CLI_SERVER_WORKERS": "4"}, user=user)
    site.processes.wait_until("wordpress", lambda: answers(site.url + "/wp-json/"), "the REST API answered")


def _php_server(site: WordPress, port: int) -> list[str | Path]:
    opcache = ["-d", "opcache.enable_cli=1", "-d", "opcache.validate_timestamps=0"]
    return ["php", *opcache, "-S", f"{site.listen}:{port}", "-t", site.document_root, _PHP / "router.php"]


def _php_digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_PHP.glob("*.php")))).hexdigest()
