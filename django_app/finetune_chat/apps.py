"""Registers the app with Django and holds the one Answering of the process. Opens no connection.

The site must run under ASGI (uvicorn, or gunicorn with uvicorn's worker): an Answering belongs to one event loop.
"""

from __future__ import annotations

from functools import cached_property

from django.apps import AppConfig
from django.conf import settings

from finetune_chat.answering.answering import Answering
from finetune_chat.settings import ChatSettings


class FinetuneChatConfig(AppConfig):
    """`INSTALLED_APPS = [..., "finetune_chat"]`."""

    name = "finetune_chat"
    verbose_name = "Chat with the site"

    @cached_property
    def chat_settings(self) -> ChatSettings:
        """What FINETUNE_CHAT in Django's settings says."""
        return ChatSettings.from_mapping(getattr(settings, "FINETUNE_CHAT", {}))

    @cached_property
    def answering(self) -> Answering:
        """The queue, the index and the model server as this process sees them."""
        return Answering.from_settings(self.chat_settings)
