"""Personal data and secrets in documents: found by their form and, where there is one, their checksum.

E-mail addresses, phone numbers, IBANs, card and IP addresses go by the run's policy, except the site's own published
contact; keys, tokens and passwords are always taken out, because they are never an answer. Code is searched for
secrets only. Names and postal addresses have no form that a pattern can tell, and are not looked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import PersonalDataPolicy
from finetune_trainer.dataset.cleaning.checksums import is_card_number, is_iban, is_public_address
from finetune_trainer.dataset.cleaning.markdown import outside_code
from finetune_trainer.dataset.cleaning.secrets import redact_secrets
from finetune_trainer.dataset.on_disk import RowsOnDisk

EXAMPLES_PER_KIND = 20

_EMAIL = (
    r"(?<![\w.+%/@-])[\w+-](?:[\w.+%-]{0,62}[\w+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@-])"
)
_IP_ADDRESS = (
    r"(?<![\w.:/-])(?:\d{1,3}(?:\.\d{1,3}){3}|[23][0-9a-fA-F]{0,3}(?::[0-9a-fA-F]{0,4}){3,7})(?![\w:-]|\.\d)"
)
_PHONE = r"""(?<![\w.,/#:$€£=-])(?:
    \+[1-9]\d{0,2}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?\d{1,4}(?:[ .\-/]?\d{2,4}){1,4}    # +44 1632 960 123
    |(?<!\d[ ])(?:\(\d{3}\)[ ]?\d{3}[ .-]\d{4}|\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4}   # (555) 010-0199
    |\(0\d{2,5}\)[ ]?\d{2,4}(?:[ -]?\d{2,4}){1,2}|0\d{2,4}[ ]\d{3,4}[ ]?\d{3,4}        # 01632 960 123
    |0\d{2,4}[/-]\d{5,9})(?![ ]\d)                                                     # 030/1234567
)(?![\w%€£-]|[.,/:]\d)"""
_CALL = re.compile(
    r"(?i)\b(?:tel(?:ephone)?|phone|mobile|fax|call|ring|whatsapp)\b\.?[ ]?(?:us[ ])?(?:on|at|number|no\.?)?[ ]?:?[ ]*$"
)
_LONG_NUMBER = re.compile(r"(?<![\w.,/#+$€£-])0?\d(?:[ -]?\d){6,13}(?![\w%€£-]|[.,/:]\d)")
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail", re.compile(_EMAIL)),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b")),
    ("card number", re.compile(r"(?<![\w.,-])[2-6]\d{3}(?:[ -]?\d){8,15}(?![\w-]|[.,]\d)")),
    ("social security number", re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")),
    ("IP address", re.compile(_IP_ADDRESS)),
    ("phone", re.compile(_PHONE, re.VERBOSE)),
    ("phone", _LONG_NUMBER),
)  # fmt: skip
"""The first kind that takes a stretch of text has it."""
KINDS = tuple(dict.fromkeys(kind for kind, _ in _KINDS))

_CONTACT_LINK = re.compile(r"(?i)\[((?:!\[[^\[\]]*\]\([^()\s]*\)|[^\[\]])*)\]\((mailto|tel|sms):([^()\s]*)\)")
_URL = re.compile(r"(?:https?|ftp)://[^\s()<>]+|\bwww\.[^\s()<>]+")
_CONTACT_PAGE = re.compile(
    r"(?i)\b(?:contact|contact-?us|kontakt|impressum|imprint|legal-?notice|contacto|contatti)\b"
)
_DIGIT = re.compile(r"\d")
_RESERVED = frozenset({"example.com", "example.org", "example.net"})
_VERSION_BEFORE = re.compile(r"(?i)(?:\bv|version|release|section|§)[ .]?$")


@dataclass(frozen=True)
class Finding:
    """One hit that a person may look up; the value is shown in part only."""

    kind: str
    hint: str
    """Such as `a…@m….example`."""
    url: str
    """Of the document."""


@dataclass(frozen=True)
class PersonalDataFound:
    """What the report tells."""

    policy: PersonalDataPolicy
    counts: Mapping[str, int] = field(default_factory=dict)
    """Hits by kind; keys and tokens under their own kinds, such as `password`."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Documents with at least one hit, by kind."""
    examples: tuple[Finding, ...] = ()
    """At most EXAMPLES_PER_KIND of each kind, in the order of the documents; never a whole value, never a secret."""


def guard_personal_data(
    documents: Sequence[Document], policy: PersonalDataPolicy, folder: Path | None = None
) -> tuple[Sequence[Document], PersonalDataFound]:
    """The documents with secrets and, under `redact`, personal data replaced by words such as `[e-mail]`.

    They lie on disk, in `folder` or the system's own.
    """
    published = _published_numbers(documents) if policy is not PersonalDataPolicy.OFF else frozenset()
    counts: Counter[str] = Counter()
    in_documents: Counter[str] = Counter()
    examples: list[Finding] = []

    def guarded_one(document: Document) -> Document:
        found: list[tuple[str, str]] = []
        guard = _Guard(policy, _host(document.post_url), published, found)
        changed = {
            name: text
            for name in ("post_title", "post_excerpt", "post_content")
            if (text := guard.pass_text(getattr(document, name))) != getattr(document, name)
        }
        kinds = Counter(kind for kind, _ in found)
        in_documents.update(dict.fromkeys(kinds, 1))
        for kind, value in found:
            if counts[kind] < EXAMPLES_PER_KIND:
                examples.append(Finding(kind, hint_of(kind, value), document.post_url))
            counts[kind] += 1
        return document.model_copy(update=changed) if changed else document

    guarded = RowsOnDisk((guarded_one(document) for document in documents), Document, folder)
    return guarded, PersonalDataFound(
        policy, dict(sorted(counts.items())), dict(sorted(in_documents.items())), tuple(examples)
    )


def find_personal_data(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each hit in prose, in order, none within another; addresses of pages are no hits."""
    hits: list[tuple[str, int, int]] = []
    left = _URL.sub(_blotted, text)
    for kind, pattern in _KINDS:
        if kind == "e-mail" and "@" not in text:
            continue
        found = [
            match
            for match in pattern.finditer(left)
            if (pattern is not _LONG_NUMBER or _CALL.search(left[max(0, match.start() - 30) : match.start()]))
            and _is_real(kind, match.group(), left[max(0, match.start() - 10) : match.start()])
        ]
        for match in found:
            hits.append((kind, *match.span()))
            left = left[: match.start()] + _blotted(match) + left[match.end() :]
    yield from sorted(hits, key=lambda hit: hit[1])


def _blotted(match: re.Match[str]) -> str:
    return "\x00" * len(match.group())


def hint_of(kind: str, value: str) -> str:
    """Enough of a value to find it again, too little to use it."""
    if kind == "e-mail":
        name, _, domain = value.partition("@")
        return f"{name[:1]}…@{domain[:1]}….{domain.rpartition('.')[2]}"
    if kind not in KINDS:
        return ""
    return f"…{value[-2:]}"


class _Guard:
    """Goes over the texts of one document."""

    def __init__(
        self,
        policy: PersonalDataPolicy,
        host: str,
        published: frozenset[str],
        found: list[tuple[str, str]],
    ) -> None:
        self._policy = policy
        self._host = host
        self._published = published
        self._found = found

    def pass_text(self, text: str) -> str:
        """The text as it may be stored."""
        text = redact_secrets(text, lambda kind: self._found.append((kind, "")))
        if self._policy is PersonalDataPolicy.OFF or not _may_hold(text):
            return text
        return outside_code(text, self._pass_prose)

    def _pass_prose(self, text: str) -> str:
        if self._policy is PersonalDataPolicy.REDACT:
            text = _CONTACT_LINK.sub(self._redact_link, text)
        else:
            text_without_links = _CONTACT_LINK.sub(lambda link: f"[{link.group(1)}]", text)
            self._replace(text_without_links)
            return text
        return self._replace(text)

    def _redact_link(self, link: re.Match[str]) -> str:
        """A link to an address or number is its text; the hit itself is found in the text, or named here."""
        text, scheme, value = link.group(1), link.group(2).lower(), link.group(3).partition("?")[0]
        kind = "e-mail" if scheme == "mailto" else "phone"
        if self._is_published(kind, value):
            return link.group()
        if any(found == kind for found, _, _ in find_personal_data(text)):
            return text
        self._found.append((kind, value))
        return f"{text} [{kind}]".strip()

    def _replace(self, text: str) -> str:
        parts: list[str] = []
        end = 0
        for kind, start, stop in find_personal_data(text):
            value = text[start:stop]
            if self._is_published(kind, value):
                continue
            self._found.append((kind, value))
            parts += [text[end:start], f"[{kind}]"]
            end = stop
        return "".join([*parts, text[end:]])

    def _is_published(self, kind: str, value: str) -> bool:
        """Whether it is the site's own contact: an address at its domain, a number on its contact page."""
        if kind == "e-mail":
            domain = value.rpartition("@")[2].lower()
            return domain in _RESERVED or _is_same_site(domain, self._host)
        return kind == "phone" and _digits(value) in self._published


def _is_real(kind: str, value: str, before: str) -> bool:
    digits = _digits(value)
    checks: dict[str, Callable[[], bool]] = {
        "e-mail": lambda: ".." not in value,
        "IBAN": lambda: is_iban(value),
        "card number": lambda: is_card_number(digits),
        "IP address": lambda: is_public_address(value) and not _VERSION_BEFORE.search(before),
        "phone": lambda: 7 <= len(digits) <= 15 and len(set(digits)) > 2,
    }
    return checks[kind]() if kind in checks else True


def _may_hold(text: str) -> bool:
    return "@" in text or len(_DIGIT.findall(text)) >= 7


def _published_numbers(documents: Sequence[Document]) -> frozenset[str]:
    """Digits of the phone numbers on the site's contact pages."""
    numbers: set[str] = set()
    for document in documents:
        if not _CONTACT_PAGE.search(f"{document.post_title} {urlsplit(document.post_url).path}"):
            continue
        text = _CONTACT_LINK.sub(lambda link: f"{link.group(1)} call {link.group(3)} ", document.post_content)
        numbers |= {
            _digits(text[start:end]) for kind, start, end in find_personal_data(text) if kind == "phone"
        }
    return frozenset(numbers)


def _is_same_site(domain: str, host: str) -> bool:
    return bool(host) and (domain == host or host.endswith("." + domain) or domain.endswith("." + host))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").removeprefix("www.")


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)
