"""The real WordPress, Weaviate and S3 server, for tests in this folder: parts of instance `test`, without Kubernetes.

They stay up after the tests, so that the next call takes seconds.
`python -m devcluster down --name test --wipe` ends them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.access import Access, access
from devcluster.paths import Instance

INSTANCE = "test"
PARTS = ("wordpress", "weaviate", "s3", "base-model")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def running_parts() -> Access:
    """Typed addresses and secrets of the running parts."""
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", "up", "--name", INSTANCE, *PARTS],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"the parts did not come up:\n{done.stderr[-4000:]}", pytrace=False)
    return access(Instance(INSTANCE))


@pytest.fixture(scope="session")
def parts(running_parts: Access) -> dict[str, str]:
    """The same under the names of the environment variables that `python -m devcluster env` prints."""
    return running_parts.as_environment()
