"""A Weaviate in memory for the tests of the knowledge base."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_httpserver import HTTPServer

from tests.finetune_trainer.dataset.knowledge_base.fake_weaviate import FakeWeaviate


@pytest.fixture
def server(httpserver: HTTPServer) -> Iterator[FakeWeaviate]:
    fake = FakeWeaviate(httpserver)
    yield fake
    fake.stop()
