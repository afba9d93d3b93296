from __future__ import annotations

import os

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_site.settings")
os.environ.setdefault("DJANGO_SECRET_KEY", "only for tests")
os.environ["DJANGO_ALLOWED_HOSTS"] = "testserver"
django.setup()


@pytest.fixture
def model() -> object:
    from tests.finetune_chat.parts import FakeModel

    return FakeModel("Adults pay ", "£7.40", " [1", "].")
