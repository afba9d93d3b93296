"""The answer inside a section: its telling sentence, and the strings of it that carry the fact. Pure text."""

from __future__ import annotations

import re
from functools import lru_cache

from finetune_contract.answer_text import contains, normalised
from finetune_contract.sections import lines_and_code, without_links

MAX_ANSWER_WORDS = 35
MIN_ANSWER_WORDS = 4
MAX_FACT_STRINGS = 2

_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|Gen|Gov|Sen|Rep|Capt|Lt|Sgt|Jr|Sr|Mt|Ft|Ave|vs|etc|cf|al|approx|ca|est|dept|incl|max|min"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|(?:[A-Za-z]\.)+[A-Za-z]|[A-HJ-Z])\.$"
)
"""Ends no sentence, whatever follows; a single capital is the first letter of a name."""
_BEFORE_A_NUMBER = re.compile(r"\b(?:Nos?|Fig|Vol|Ch|Sec|Art|pp?)\.$")
_CLOCK = re.compile(r"\b[ap]\.m\.$")
_GOES_ON = re.compile(r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|[A-Z]{2,4}\b|\(")
"""After a clock's a.m. or p.m.: a day or a time zone."""
_SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)]))\s+(?=["'“‘(`£$€]?[A-Z0-9`£$€])""")
_NOT_PROSE = re.compile(r"^\s*(?:[-*+] |\d+[.)] |\||>|!\[|#|```|~~~|---)")
_EMPHASISED = re.compile(r"(\*{1,3}|_{1,3})(?![\s*_])(?:(?!\1).)+\1", re.S)
"""A paragraph that is emphasised as a whole is a caption, a note or a motto."""
_ASKS_FOR_A_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|often|big|large|deep|high|far)|when|costs?|prices?|number|hours|times?)\b",
    re.I,
)
_CLAUSE_ENDS = re.compile(
    r";|, (?=(?:which|who|where|whose|while|whereas|although|though|because|but|so that|so we)\b)| [–—] "
)
"""Not at any comma: the next words may be the rest of a list, or what the first ones waited for."""
_DIGIT = re.compile(r"\d")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_NUMBER_WORD = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    "|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|dozen"
)
_UNIT = (
    "seconds?|minutes?|hours?|days?|nights?|weeks?|months?|years?|millimetres?|centimetres?|metres?|kilometres?|miles?|feet"
    "|inches|grams?|kilograms?|tonnes?|litres?|degrees|per cent|percent|pence|pounds?|euros?|dollars?|volts?|watts?"
    "|kilowatts?|mm|cm|km|kg|ml|mg|kW|kWh|MB|GB|TB|MiB|GiB|KiB|ms|GHz|MHz|m|g"
)
_NUMBER_IN_WORDS = re.compile(rf"\b(?:{_NUMBER_WORD}|once|daily|free|{_MONTH}|\w+days?)\b", re.I)
_SMALL_WORD = (
    "and|or|to|from|at|is|are|of|in|on|by|the|a|an|for|with|until|was|were|as|that|per|each|every|it|its|but"
)
_FACT_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        r"`([^`]+)`",
        r"[£$€]\s?\d[\d,]*(?:\.\d+)?(?:(?:[kKMB]|[mb]n?| (?:thousand|(?:m|b|tr)illion))\b)?",
        r"\b\d{1,2}(?::\d{2}){1,2}\b",
        r"\b0\d{2,4}(?: \d{3,4}){1,3}\b",
        rf"\b\d{{1,2}} (?:{_MONTH})(?: \d{{4}})?\b|\b(?:{_MONTH}) \d{{4}}\b",
        rf"(?<![\w.])\d(?:[\d,]*\d)?(?:\.\d+)*(?:%|(?:[ -]?(?:{_UNIT}|st|nd|rd|th))?(?!\w))",
        rf"\b(?i:{_NUMBER_WORD})(?:-(?:{_NUMBER_WORD}|one))? (?!(?:{_SMALL_WORD}|\w+ing)\b)[A-Za-z]{{2,}}\b",
        r"\b[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)+",
        rf"(?<=[a-z,] )(?!(?:{_MONTH})\b|[A-Z][a-z]+day\b|I[’'])[A-Z][\w'’-]{{2,}}",
    )
)
"""From the most to the least telling; the last two are names."""
_NAME_PATTERNS = _FACT_PATTERNS[-2:]


def sentences(text: str) -> list[str]:
    """Sentences of a paragraph; `Mr.`, `No. 7` and their like end none."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(" ".join(text.split())):
        if found and _goes_on(found[-1], piece):
            found[-1] += " " + piece
        elif piece:
            found.append(piece)
    return found


def first_prose(text: str) -> str:
    """The first paragraph that is neither list, table, code, quotation nor picture; without links."""
    blocks = [list[str]()]
    for line, is_code in lines_and_code(text.splitlines()):
        if is_code or not line.strip():
            blocks.append([])
        else:
            blocks[-1].append(line)
    for block in map("\n".join, blocks):
        if _NOT_PROSE.match(block) or _EMPHASISED.fullmatch(block.strip()):
            continue
        if prose := " ".join(without_links(block).split()):
            return prose
    return ""


def answer_sentence(heading: str, text: str) -> str:
    """The sentence of a section that answers its heading, at most MAX_ANSWER_WORDS long; empty when there is none."""
    found = sentences(first_prose(text))
    if not found:
        return ""
    start = 0
    if _ASKS_FOR_A_NUMBER.search(heading) and not _states_a_number(found[0]):
        start = next((place for place, sentence in enumerate(found[:3]) if _states_a_number(sentence)), 0)
    answer = found[start]
    if len(answer.split()) < MIN_ANSWER_WORDS and start + 1 < len(found):
        answer += " " + found[start + 1]
    answer = _cut(answer)
    if len(answer.split()) < MIN_ANSWER_WORDS or answer.endswith(("?", ":")):
        return ""
    return answer


def fact_strings(answer: str, question: str) -> list[str]:
    """Strings that carry the fact and are not given away by the question; the answer `contains` each of them."""
    asked = question.lower()
    patterns = list(zip(_FACT_PATTERNS, _found_by_pattern(answer), strict=True))
    if asked.startswith("who ") or " who " in asked:
        patterns = [*patterns[-2:], *patterns[:-2]]
    found: list[str] = []
    taken: list[tuple[int, int]] = []
    for pattern, matches in patterns:
        for start, end, string in matches:
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            if string.lower() in asked or (pattern in _NAME_PATTERNS and start == 0 and " " not in string):
                continue
            taken.append((start, end))
            found.append(string)
        if len(found) >= MAX_FACT_STRINGS or (found and pattern is _FACT_PATTERNS[-3]):
            break
    return list(dict.fromkeys(found))[:MAX_FACT_STRINGS]


@lru_cache(maxsize=1024)
def _found_by_pattern(answer: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Start, end and string of what each of the patterns finds; an answer is asked for in many wordings."""
    return tuple(
        tuple(
            (*match.span(match.lastindex or 0), string)
            for match in pattern.finditer(answer)
            if _can_be_required(string := match.group(match.lastindex or 0).rstrip(".,;:"), answer)
        )
        for pattern in _FACT_PATTERNS
    )


def _can_be_required(string: str, answer: str) -> bool:
    """Not part of a longer word or number such as the £7.40 of £7.40ポンド: the answer itself would be wrong."""
    return bool(normalised(string)) and contains(answer, string)


def _states_a_number(sentence: str) -> bool:
    return bool(_DIGIT.search(sentence) or _NUMBER_IN_WORDS.search(sentence))


def _goes_on(sentence: str, piece: str) -> bool:
    """Whether a full stop that something follows is that of an abbreviation."""
    if _CLOCK.search(sentence):
        return _GOES_ON.match(piece) is not None
    if _BEFORE_A_NUMBER.search(sentence):
        return piece[:1].isdigit()
    return _ABBREVIATION.search(sentence) is not None


def _cut(answer: str) -> str:
    """A long answer ends where a clause does that makes sense alone; one that has no such place is no answer."""
    if len(answer.split()) <= MAX_ANSWER_WORDS:
        return answer
    ends = [match.start() for match in _CLAUSE_ENDS.finditer(answer)]
    for end in reversed(ends):
        words = len(answer[:end].split())
        if MAX_ANSWER_WORDS // 3 < words <= MAX_ANSWER_WORDS and answer[:end].count("(") == answer[
            :end
        ].count(")"):
            return answer[:end] + "."
    return ""
