"""`uvicorn demo_site.asgi:application --lifespan off`."""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_site.settings")
application = ASGIStaticFilesHandler(get_asgi_application())
"""Serves its two static files itself; a large site puts its own server for static files in front."""
