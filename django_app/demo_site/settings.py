"""Django settings of the demo site, all from the environment. A template for your own site, not a library."""

from __future__ import annotations

import logging
import os
import secrets

logger = logging.getLogger("demo_site")


def _list(name: str, otherwise: str = "") -> list[str]:
    return [item.strip() for item in os.environ.get(name, otherwise).split(",") if item.strip()]


SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "")
if not SECRET_KEY:
    SECRET_KEY = secrets.token_urlsafe(50)
    logger.warning(
        "DJANGO_SECRET_KEY is not set: a key was made up for this process; set one for several processes"
    )

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = _list("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
ROOT_URLCONF = "demo_site.urls"
INSTALLED_APPS = ["django.contrib.staticfiles", "finetune_chat"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
X_FRAME_OPTIONS = "SAMEORIGIN"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES: dict[str, dict[str, str]] = {}
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"


def _is_news(record: logging.LogRecord) -> bool:
    """A probe that finds the site not ready is none: the chat itself tells the reason, once."""
    return getattr(record, "status_code", None) != 503


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {"news": {"()": "django.utils.log.CallbackFilter", "callback": _is_news}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["news"]}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("LOG_LEVEL", "INFO")},
    "loggers": {"httpx": {"level": "WARNING"}},
}

FINETUNE_CHAT: dict[str, object] = {
    "SITE_NAME": os.environ.get("CHAT_SITE_NAME", "this site"),
    "EXAMPLES": [line.strip() for line in os.environ.get("CHAT_EXAMPLES", "").splitlines() if line.strip()],
    "MODEL_SERVER_URL": os.environ.get("MODEL_SERVER_URL", "http://127.0.0.1:8081"),
    "MODEL_ID": os.environ.get("MODEL_ID", ""),
}
for _name, _variable in (
    ("MIN_SCORE", "CHAT_MIN_SCORE"),
    ("MAX_TOKENS", "CHAT_MAX_TOKENS"),
    ("SLOTS", "CHAT_SLOTS"),
    ("QUEUE", "CHAT_QUEUE"),
):
    if os.environ.get(_variable):
        FINETUNE_CHAT[_name] = os.environ[_variable]
if os.environ.get("FINETUNE_DOCUMENTS_FILE"):
    FINETUNE_CHAT["DOCUMENTS"] = os.environ["FINETUNE_DOCUMENTS_FILE"]
else:
    FINETUNE_CHAT["WEAVIATE"] = {
        "URL": os.environ.get("WEAVIATE_URL", "http://localhost:8080"),
        "GRPC_PORT": os.environ.get("WEAVIATE_GRPC_PORT", "50051"),
        "COLLECTION": os.environ.get("WEAVIATE_COLLECTION", "Post"),
        "API_KEY": os.environ.get("WEAVIATE_API_KEY", ""),
    }
