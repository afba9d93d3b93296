"""Addresses of the app; include it at the root or below a path."""

from __future__ import annotations

from django.urls import path

from finetune_chat import views

app_name = "finetune_chat"
urlpatterns = [
    path("", views.page, name="page"),
    path("api/chat", views.chat, name="chat"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
]
