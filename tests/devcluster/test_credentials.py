import stat
from pathlib import Path

from devcluster import credentials
from devcluster.paths import Instance


def test_secrets_are_made_once_and_differ_between_instances(tmp_path: Path) -> None:
    demo, test = Instance("demo", tmp_path), Instance("test", tmp_path)

    assert credentials.load(demo) == credentials.load(demo)
    assert credentials.load(demo).weaviate_api_key != credentials.load(test).weaviate_api_key


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    instance = Instance("demo", tmp_path)
    credentials.load(instance)

    mode = (instance.state / "credentials.json").stat().st_mode

    assert stat.S_IMODE(mode) == 0o600


def test_printing_them_shows_no_secret(tmp_path: Path) -> None:
    secret = credentials.load(Instance("demo", tmp_path))

    assert secret.s3_secret_key not in f"{secret!r} {secret}"


def test_the_application_password_is_kept_beside_the_others(tmp_path: Path) -> None:
    instance = Instance("demo", tmp_path)
    before = credentials.load(instance)

    credentials.keep_application_password(instance, "abcd efgh")

    after = credentials.load(instance)
    assert after.wordpress_application_password == "abcd efgh"
    assert after.s3_secret_key == before.s3_secret_key
