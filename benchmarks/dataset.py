"""Speed and memory of the dataset stage: cleaning, reading a WordPress site, and making examples without a model.

Prints one JSON object as its last line. The site is a small HTTP server in a process of its own that gives the posts
as WordPress's REST API does; `sync_ratio_to_bare` compares reading it with fetching the same pages and doing nothing
with them. A real WordPress needs about 0.6 s for a page of 100 posts: `--answer-seconds` makes the server wait as long.
Each part runs in a fresh process, so that its peak memory is its own. Seconds of the processor (`_cpu_`) say more than
seconds of the clock on a machine that others use.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from wordpress_site import Row, serve_site

if TYPE_CHECKING:
    from finetune_contract.run_spec import SourceSpec
    from finetune_trainer.dataset.sources import Source

Result = dict[str, float]
IN_FLIGHT = 2
RUNS = 3

PLACES = "mill weir barn orchard ferry quarry bakery lock kiln granary bridge workshop".split()  # noqa: SIM905
COLOURS = "red grey white green brown amber slate copper".split()  # noqa: SIM905
THINGS = "wheel gate roof boiler rope pump scale crane oven clock".split()  # noqa: SIM905
ASIDES = (
    "The keeper writes the figure on a board by the door, where everybody who comes in can read it.",
    "Two neighbours helped, brought a ladder, and went home with a loaf each before the rain came.",
    "In a dry summer it is looked at twice a week, and once a week for the rest of the year.",
    "Whoever wants to know more may ask at the desk, where a drawing of every part is kept.",
    "It was mended with larch from the slope above the village, which keeps out water for a long time.",
)


def made_posts(count: int) -> Iterator[Row]:
    """Posts of about 7,000 characters of HTML: four sections, links, a list, code, a table, a picture, some blocks."""
    for number in range(1, count + 1):
        place = f"{COLOURS[number % 8]} {PLACES[number % 12]} {number}"
        sections = []
        for part in range(4):
            thing = THINGS[(number + 3 * part) % 10]
            asides = "".join(
                f'<p>{ASIDES[(number + part + line) % 5]} See <a href="/{number + line}/">the page of number '
                f"{number + line}</a>, <em>please</em>.</p>\n"
                for line in range(4)
            )
            sections.append(
                f"<h2>The {thing} of the {place}</h2>\n<p>The {thing} of the {place} weighs <strong>"
                f"{number * 7 + part} kilograms</strong> and was made in {1800 + (number + part) % 200}.</p>\n{asides}"
            )
        html = (
            f"<p>Everything about the {place}.</p>\n" + "".join(sections) + "<ul>"
            f"<li>Opens at {number % 4 + 7}</li>"
            f"<li>Closes at {number % 4 + 16}<ul><li>later in June</li></ul></li></ul>"
            '<pre class="wp-block-code"><code class="language-python">'
            f"weight = {number}\nprint(weight * 7)</code></pre>"
            f"<table><tr><th>Part</th><th>Weight</th></tr><tr><td>lid</td><td>{number} kg</td></tr></table>"
            f'<figure class="wp-block-image"><img src="/{number}.png" alt="The {place}"><figcaption>From the east'
            '</figcaption></figure><div class="wp-block-query"><p>Another post</p></div><script>go()</script>'
        )
        yield _row(number, f"The {place}", html, f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:00:00")


def posts_of_file(path: Path) -> Iterator[Row]:
    """Posts of a file with a JSON object a line: title, html, and date if it is known."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, start=1):
            given = json.loads(line)
            date = f"{given.get('date', '2024-01-01')[:10]}T08:00:00"
            yield _row(number, given["title"], given["html"], date)


def _row(number: int, title: str, html: str, date: str) -> Row:
    return {
        "id": number,
        "type": "post",
        "status": "publish",
        "modified_gmt": date,
        "date_gmt": date,
        "guid": {"rendered": f"https://site.example/?p={number}"},
        "link": f"https://site.example/{number}/",
        "title": {"rendered": title},
        "excerpt": {"rendered": ""},
        "content": {"rendered": html, "protected": False},
        "author": 1,
        "categories": [1],
        "tags": [1 + number % 3],
    }


def _silent(*_: object, **__: object) -> None:
    return None


def _peak_megabytes() -> float:
    """Of this process alone; what getrusage tells began before the program did."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024, 1)


def clean_part(posts: Path) -> Result:
    """Posts a second, and megabytes of HTML a second, on one core."""
    from finetune_trainer.dataset.cleaning.html import clean_html

    clean_html("<p>warm</p>")
    characters = number = 0
    spent = 0.0
    for line in posts.open():
        row = json.loads(line)
        html = row["content"]["rendered"]
        started = time.process_time()
        clean_html(html, row["link"])
        spent += time.process_time() - started
        number, characters = number + 1, characters + len(html)
    return {
        "clean_posts_per_second": round(number / spent, 1),
        "clean_megabytes_per_second": round(characters / spent / 1e6, 2),
    }


def bare_part(url: str, paths: list[str]) -> Result:
    """Fetch pages as the source does, two in flight, and do nothing with them; the best of three times."""
    best = {"seconds": float("inf"), "cpu_seconds": float("inf")}
    for _ in range(RUNS):
        session = requests.Session()
        started, cpu_started = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            deque(pool.map(partial(_fetch, session, url), paths), maxlen=0)
        best["seconds"] = min(best["seconds"], time.perf_counter() - started)
        best["cpu_seconds"] = min(best["cpu_seconds"], time.process_time() - cpu_started)
    return best


def _fetch(session: requests.Session, url: str, path: str) -> int:
    return len(session.get(url + path, timeout=60).content)


def sync_part(url: str, folder: Path) -> Result:
    """Read the whole site, the best of three times; then clean each post as it comes, and hold nothing but counts."""
    from finetune_trainer.dataset.cleaned_documents import clean

    best = {"seconds": float("inf"), "cpu_seconds": float("inf")}
    for run in range(1 + RUNS):  # the first time the server makes its answers
        reader = _reader(url, folder / f"{run}")
        started, cpu_started = time.perf_counter(), time.process_time()
        reader.check()
        harvest = reader.read(_silent)
        if run:
            best["seconds"] = min(best["seconds"], time.perf_counter() - started)
            best["cpu_seconds"] = min(best["cpu_seconds"], time.process_time() - cpu_started)
    words = sum(len(clean(document).post_content.split()) for document in harvest.documents)
    return {**best, "documents": len(harvest.documents), "words": words, "peak": _peak_megabytes()}


def build_part(url: str, folder: Path, with_examples: bool) -> Result:
    """The next run of an unchanged site: from its texts to both sides of the dataset."""
    from finetune_contract.run_spec import DatasetSpec
    from finetune_trainer.dataset.build import make_examples
    from finetune_trainer.dataset.cleaned_documents import clean_harvests
    from finetune_trainer.dataset.cleaning.personal_data import guard_personal_data
    from finetune_trainer.dataset.examples.corpus import Corpus

    spec = DatasetSpec(sources=[_source(url)])
    reader = _reader(url, folder)
    started, cpu_started = time.perf_counter(), time.process_time()
    reader.check()
    harvest = reader.read(_silent)
    read = time.perf_counter()
    if not with_examples:
        return {"read_seconds": read - started, "documents": len(harvest.documents)}
    documents, *_ = clean_harvests({"site": harvest}, _silent)
    cleaned = time.perf_counter()
    documents, _ = guard_personal_data(documents, spec.personal_data)
    guarded = time.perf_counter()
    split, _ = make_examples(Corpus(documents), spec, _silent)
    ended, cpu_ended = time.perf_counter(), time.process_time()
    return {
        "seconds": ended - started,
        "cpu_seconds": cpu_ended - cpu_started,
        "read_seconds": read - started,
        "guard_seconds": guarded - cleaned,
        "examples_seconds": ended - guarded,
        "examples": len(split.training) + len(split.evaluation) + len(split.transfer),
        "peak": _peak_megabytes(),
    }


def _source(url: str) -> SourceSpec:
    from finetune_contract.run_spec import SourceSpec, WordPressSource

    return SourceSpec(name="site", wordpress=WordPressSource(url=url, post_types=["post"]))


def _reader(url: str, folder: Path) -> Source:
    from finetune_trainer.dataset.sources import open_source
    from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
    from finetune_trainer.stores.local_folder import LocalFolder

    memory = HarvestMemory(folder / "scratch", LocalFolder(folder / "store"))
    return open_source(_source(url), {}, False, memory)


def _alone(part: Callable[..., Result], *arguments: Any) -> Result:
    print(f"{part.__name__} ...", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


def _sync_and_build(
    posts: Path, answer_seconds: float, folder: Path, count: int, with_examples: bool
) -> Result:
    """The first read beside a bare fetch of the same pages, then the next run, of a site that has not changed."""
    with serve_site(posts, answer_seconds) as (url, asked):
        first = _alone(sync_part, url, folder)
        paths = asked()
        paths = paths[: len(paths) // (1 + RUNS)]
        bare = _alone(bare_part, url, paths)
        asked()
        built = _alone(build_part, url, folder / "1", with_examples)
        again = asked()
    result = {
        "sync_posts_per_second": round(count / first["seconds"], 1),
        "sync_requests": len(paths),
        "sync_seconds": round(first["seconds"], 2),
        "bare_seconds": round(bare["seconds"], 2),
        "sync_ratio_to_bare": round(first["seconds"] / bare["seconds"], 2),
        "sync_cpu_seconds": round(first["cpu_seconds"], 2),
        "bare_cpu_seconds": round(bare["cpu_seconds"], 2),
        "sync_peak_megabytes": first["peak"],
        "unchanged_read_seconds": round(built["read_seconds"], 2),
        "unchanged_requests_per_100_posts": round(100 * len(again) / count, 2),
        "unchanged_bodies": sum("include=" in path and "content" in path for path in again),
    }
    if not with_examples:
        return result
    return result | {
        "build_seconds": round(built["seconds"], 1),
        "build_cpu_seconds": round(built["cpu_seconds"], 1),
        "build_posts_per_second": round(count / built["seconds"], 1),
        "build_personal_data_seconds": round(built["guard_seconds"], 1),
        "build_examples_seconds": round(built["examples_seconds"], 1),
        "build_examples": built["examples"],
        "build_peak_megabytes": built["peak"],
    }


def main() -> None:
    """Time all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=500, help="how many posts")
    parser.add_argument("--from", dest="file", type=Path, help="take them from a .jsonl or .jsonl.gz file")
    parser.add_argument(
        "--answer-seconds", type=float, default=0.0, help="the site waits this long for 100 posts"
    )
    parser.add_argument(
        "-o", "--output", choices=["json"], default="json", help="one JSON line, and nothing else yet"
    )
    parser.add_argument("--only", choices=["clean", "sync", "build"], help="a part alone; build syncs first")
    arguments = parser.parse_args()
    result: Result = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        posts = folder / "posts.jsonl"
        made = posts_of_file(arguments.file) if arguments.file else made_posts(arguments.posts)
        count = 0
        with posts.open("w") as file:
            for row in itertools.islice(made, arguments.posts):
                file.write(json.dumps(row) + "\n")
                count += 1
        result["posts"] = count
        if arguments.only in {None, "clean"}:
            result |= _alone(clean_part, posts)
        if arguments.only != "clean":
            with_examples = arguments.only != "sync"
            result |= _sync_and_build(posts, arguments.answer_seconds, folder, count, with_examples)
    result["load_average"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
