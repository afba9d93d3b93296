"""Keys, tokens and passwords in a text: taken out always, because they are never an answer.

Must not know documents. What it cannot tell from a placeholder or a name in code it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SECRET = "[secret]"  # noqa: S105 - the word that stands in a secret's place


@dataclass(frozen=True)
class _Form:
    """How one kind of secret looks. Only the group `value` is replaced, or all of it where there is none."""

    kind: str
    marks: tuple[str, ...]
    """Lower case; a text without any of them is not searched."""
    pattern: re.Pattern[str]
    is_real: Callable[[str], bool] = lambda value: True


def _has_digit_and_letter(value: str) -> bool:
    return any(character.isdigit() for character in value) and any(character.isalpha() for character in value)


_PLACEHOLDER = re.compile(
    r"(?i)^(?:[<\[{$%(].*|.*[>}\])%]|.*(?:your|my|some|the)[_-].*|\W*|(.)\1*|x+|(?:change|replace)[_-]?me.*"
    r"|[a-z_.-]*(?:secret|passw(?:or)?d|token|key)[a-z_.-]*|.*(?:example|placeholder|redacted).*"
    r"|none|null|true|false|string|required|optional|hidden|os\.environ.*|process\.env.*|env\..*)$"
)
"""Stand-ins, and names of fields and variables."""


def _is_no_placeholder(value: str) -> bool:
    return not _PLACEHOLDER.match(value)


def _is_bare_secret(value: str) -> bool:
    return _is_no_placeholder(value) and _has_digit_and_letter(value)


_NAMED = (
    r"(?i)(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"(?![\w-]{0,21}(?:type|name|ur[il]|endpoint|field|path|file|length|expir|hash|policy|reset|ref|scope|[_-]id))"
    r"(?:[_-][\w-]{0,20}|\d{0,3})[\"']?\s{0,4}(?:=>|:=|=|:)\s{0,4}"
)
"""It looks for `type` and its like no further than a name may go on, so that a long unbroken run takes linear time."""
_MARKS = ("password", "passwd", "passphrase", "pwd", "secret", "token", "api_key", "api-key", "apikey", "access_key",
          "access-key", "accesskey", "private_key", "private-key", "privatekey")  # fmt: skip

_FORMS = (
    _Form("private key", ("-----begin",), re.compile(
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:(?!-----BEGIN)[\s\S]){0,20000}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:\s*[A-Za-z0-9+/=]{16,})*)")),
    _Form("AWS key", ("akia", "asia"), re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    _Form("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255})")),
    _Form("GitLab token", ("glpat-",), re.compile(r"\bglpat-[\w-]{20,}")),
    _Form("Slack token", ("xox", "xapp-", "hooks.slack.com"), re.compile(
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-\d-[A-Za-z0-9-]{10,}"
        r"|hooks\.slack\.com/services/(?P<value>T\w+/B\w+/\w{8,})")),
    _Form("API key", ("sk-",), re.compile(r"(?<![\w-])sk-[A-Za-z0-9_-]{20,}"), _has_digit_and_letter),
    _Form("API key", ("aiza", "hf_", "sk_live_", "sk_test_", "rk_live_", "npm_", "sg.", "pypi-"), re.compile(
        r"\bAIza[\w-]{35}|\bhf_[A-Za-z0-9]{30,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|\bnpm_[A-Za-z0-9]{36}\b"
        r"|\bSG\.[\w-]{16,32}\.[\w-]{16,64}|\bpypi-[\w-]{50,}")),
    _Form("JSON web token", ("eyj",), re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")),
    _Form("password", ("://",), re.compile(
        r"://[^\s/:@\"'<>]{1,64}:(?P<value>[^\s/:@\"'<>]{3,128})@"), _is_no_placeholder),
    _Form("API key", ("bearer", "basic", "accountkey="), re.compile(
        r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+(?P<value>[A-Za-z0-9._~+/=-]{16,})"),
        _is_bare_secret),
    _Form("API key", ("accountkey=",), re.compile(r"(?i)\bAccountKey=(?P<value>[A-Za-z0-9+/=]{40,})")),
    _Form("password", _MARKS, re.compile(_NAMED + r"[bru]?(?P<quote>[\"'])(?P<value>[^\"'\s]{6,200})(?P=quote)"),
          _is_no_placeholder),
    _Form("password", _MARKS, re.compile(_NAMED + r"(?P<value>[^\s\"'`,;(){}\[\]<>]{8,200}(?![\w(\[.])"
        r"(?:[(){}\[\]]+[^\s\"'`,;(){}\[\]<>]+){0,20})"),
          _is_bare_secret),
)  # fmt: skip


def redact_secrets(text: str, found: Callable[[str], None] = lambda kind: None) -> str:
    """The text with `[secret]` for each; `found` is told the kind of each, never the value. HTML will do as well."""
    lower = text.lower()
    for form in _FORMS:
        if any(mark in lower for mark in form.marks):
            text = form.pattern.sub(lambda match, form=form: _redact(form, match, found), text)  # type: ignore[misc]
    return text


def _redact(form: _Form, match: re.Match[str], found: Callable[[str], None]) -> str:
    whole = match.group()
    named = "value" in form.pattern.groupindex and match.group("value")
    value = match.group("value") if named else whole
    if SECRET in value or not form.is_real(value):
        return whole
    found(form.kind)
    if not named:
        return SECRET
    start, end = match.start("value") - match.start(), match.end("value") - match.start()
    return whole[:start] + SECRET + whole[end:]
