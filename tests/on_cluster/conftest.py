"""The real cluster with all its parts, for tests in this folder: instance `test`, brought up or found running.

It stays up after the tests, so that the next call takes seconds.
`python -m devcluster down --name test --wipe` ends it. TEST_INSTANCE names another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.access import Access, access
from devcluster.paths import Instance

INSTANCE = os.environ.get("TEST_INSTANCE", "test")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Access]:
    """Kubernetes, WordPress, Weaviate and S3, with this clone's code in the node's images."""
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", "up", "--name", INSTANCE],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"the test cluster did not come up:\n{done.stderr[-4000:]}", pytrace=False)
    found = access(Instance(INSTANCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "KUBECACHEDIR", str(found.kubectl_cache)
        )  # or kubectl and helm write into the user's home
        yield found
