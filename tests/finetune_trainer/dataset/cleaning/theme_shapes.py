"""HTML in the shapes that WordPress and its builders make, with what a reader must find again in the Markdown.

Links, pictures, code and cells are written down here by hand, so that the test counts what was meant and not what
some parser saw.
"""

# ruff: noqa: E501 - lines of HTML as they are

from __future__ import annotations

from dataclasses import dataclass

SITE = "https://mill.example"
BASE = f"{SITE}/2025/05/the-wheel/"


@dataclass(frozen=True)
class Shape:
    """One post."""

    name: str
    html: str
    words: str = ""
    """All words in order, as a browser shows them; code, alt texts and cells as well."""
    links: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    code: tuple[tuple[str, str], ...] = ()
    """Language and text."""
    cells: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()


SHAPES = (
    Shape(
        "paragraph blocks",
        """<!-- wp:paragraph --><p class="has-drop-cap">The wheel <strong>turns</strong> at <em>dawn</em>,<br>
as the <a href="/keeper/?utm_source=mail&amp;page=2#hours">keeper</a> says: &#8220;slow&#8221; &amp; steady.</p>
<!-- /wp:paragraph --><p><b>B</b>old start, H<sub>2</sub>O, 10<sup>2</sup> turns, <del>old</del> <mark>new</mark>.</p>
<hr class="wp-block-separator"/><!--more--><p>After the break.<span id="more-7"></span></p><!--nextpage--><p>Page two.</p>
<blockquote class="wp-block-quote"><p>So it goes.</p><cite>A miller</cite></blockquote>
<blockquote class="wp-block-pullquote"><p>Pulled out.</p></blockquote>""",
        words="The wheel turns at dawn as the keeper says slow steady Bold start H2O 10 2 turns old new "
        "After the break Page two So it goes A miller Pulled out",
        links=(f"{SITE}/keeper/?page=2#hours",),
    ),
    Shape(
        "headings and anchors",
        """<h2 id="gears" class="wp-block-heading">Gears <a class="anchor" aria-hidden="true" href="#gears">#</a></h2>
<p>Text with a note<sup id="r1"><a href="#n1">1</a></sup> and <a href="#oil">the part on oil</a>.</p>
<h3 id="oil"><strong>Oil</strong></h3><p>Linseed.</p><h4></h4>
<ol class="wp-block-footnotes"><li id="n1">Measured twice. <a href="#r1">&#8617;&#65038;</a></li></ol>""",
        words="Gears Text with a note 1 and the part on oil Oil Linseed 1 Measured twice",
        headings=("## Gears", "### Oil"),
    ),
    Shape(
        "lists",
        """<ul class="wp-block-list"><li>Oak<ul><li>heart</li><li>bark<ol start="3"><li>dry</li><li>wet</li></ol></li></ul></li>
<li><p>Ash</p><p>bends well, see <a href="https://wood.example/ash">ash</a></p></li></ul>
<dl><dt>Hopper</dt><dd>Holds the grain.</dd><dt>Damsel</dt><dd>Shakes it. <a href="/damsel">More</a></dd></dl>""",
        words="Oak heart bark 3 dry 4 wet Ash bends well see ash Hopper Holds the grain Damsel Shakes it More",
        links=("https://wood.example/ash", f"{SITE}/damsel"),
    ),
    Shape(
        "code",
        """<pre class="wp-block-code"><code class="language-python">def turn(n):
    if n &lt; 2:  # a_b *c* | d


        return [gallery]
    return "`" + str(n)   </code></pre>
<ol><li>Run it:<pre><code lang="bash">cd /srv
  make run</code></pre></li><li>Look.</li></ol>
<pre class="brush: php; title: ; notranslate">echo "&lt;b&gt;$x&lt;/b&gt;";</pre>
<blockquote><pre>quoted
code</pre></blockquote>
<table class="highlight"><tr><td class="gutter"><pre>1
2</pre></td><td class="code"><pre class="hljs rust">fn a() {}
fn b() {}</pre></td></tr></table>
<p><code>one<br>
two</code></p><p>Inline <code>a_b()</code> and <code>`tick`</code>, press <kbd>Ctrl</kbd>.</p>""",
        words='def turn n if n 2 a_b c d return gallery return str n 1 Run it cd srv make run 2 Look echo b x b '
        "quoted code fn a fn b one two Inline a_b and tick press Ctrl",
        code=(
            ("python", 'def turn(n):\n    if n < 2:  # a_b *c* | d\n\n\n        return [gallery]\n    return "`" + str(n)   '),
            ("bash", "cd /srv\n  make run"),
            ("php", 'echo "<b>$x</b>";'),
            ("", "quoted\ncode"),
            ("rust", "fn a() {}\nfn b() {}"),
            ("", "one\ntwo"),
        ),
    ),
    Shape(
        "tables",
        """<figure class="wp-block-table"><table><caption>Fees</caption><colgroup><col></colgroup><thead><tr><th>Who</th>
<th>Fee</th></tr></thead><tbody><tr><td rowspan="2">Adult</td><td>&pound;4 | day</td></tr><tr><td><ul><li>&pound;9</li>
<li>week</li></ul></td></tr><tr><td colspan="2"><a href="/free">Under five free</a></td></tr></tbody></table>
<figcaption>Since <b>May</b></figcaption></figure>
<table><tr><td>no</td><td>head</td></tr></table>
<table role="presentation"><tr><td><h3>Left</h3><p>side</p></td><td><table><tr><td>in</td><td>ner</td></tr></table></td></tr></table>""",
        words="Fees Who Fee Adult 4 day Adult 9 week Under five free Since May no head Left side in ner",
        links=(f"{SITE}/free",),
        cells=("Who", "Fee", "Adult", r"£4 \| day", "Adult", "- £9 - week", f"[Under five free]({SITE}/free)",
               "no", "head", "in", "ner"),
        headings=("### Left",),
    ),
    Shape(
        "pictures and galleries",
        """<figure class="wp-block-gallery"><figure class="wp-block-image"><a href="/big.jpg"><img src="/a-300.jpg"
alt="The [old] wheel" srcset="/a.jpg 2x"/></a><figcaption>In <em>1911</em></figcaption></figure><figure>
<img src="data:image/gif;base64,R0" data-src="https://cdn.example/b.jpg" alt="Stones"></figure></figure>
<ul class="blocks-gallery-grid"><li><figure><img data-lazy-src="/c.jpg" alt=""></figure></li></ul>
<img src="/pixel.gif" width="1" height="1"><p>Fine <img class="emoji" alt="&#128578;" src="https://s.w.org/1.svg"> day</p>
<noscript><img src="https://track.example/?id=7"></noscript>
<div class="wp-block-media-text"><figure><img src="/d.jpg" alt="Sacks"></figure><div><p>Sacks of flour.</p></div></div>""",
        words="The old wheel In 1911 Stones Fine day Sacks Sacks of flour",
        links=(f"{SITE}/big.jpg",),
        images=(f"{SITE}/a-300.jpg", "https://cdn.example/b.jpg", f"{SITE}/c.jpg", f"{SITE}/d.jpg"),
    ),
    Shape(
        "embeds",
        """<figure class="wp-block-embed is-type-video"><div class="wp-block-embed__wrapper"><iframe title="Grinding day"
src="https://video.example/embed/7?feature=oembed"></iframe></div><figcaption>Film</figcaption></figure>
<video controls src="/v.mp4"></video><audio><source src="/bell.mp3"></audio>
<blockquote class="wp-embedded-content" data-secret="x1"><a href="https://other.example/post/">Other mill</a></blockquote>
<iframe class="wp-embedded-content" src="https://other.example/post/embed/#?secret=x1"></iframe>
<div class="wp-block-file"><object class="wp-block-file__embed" data="/plan.pdf"></object><a href="/plan.pdf">The plan</a>
<a class="wp-block-file__button" href="/plan.pdf" download>Download</a></div>
<div class="wp-playlist"><noscript><ol><li><a href="/one.mp3">First song</a></li></ol></noscript></div>""",
        words="Grinding day Film mill example mill example Other mill The plan Download First song",
        links=("https://video.example/embed/7?feature=oembed", f"{SITE}/v.mp4", f"{SITE}/bell.mp3",
               "https://other.example/post/", f"{SITE}/plan.pdf", f"{SITE}/plan.pdf", f"{SITE}/one.mp3"),
    ),
    Shape(
        "dynamic blocks",
        """<p>Own words.</p><ul class="wp-block-latest-posts"><li><a href="/other/">Another post</a></li></ul>
<div class="wp-block-query"><ul class="wp-block-post-template"><li class="wp-block-post"><h2 class="wp-block-post-title">
<a href="/x/">Copied title</a></h2><div class="wp-block-post-excerpt">Copied text</div></li></ul></div>
<ul class="wp-block-archives"><li>May</li></ul><div class="wp-block-loginout"><a href="/login">Log in</a></div>
<div class="sharedaddy"><a href="https://share.example">Share</a></div><form><label>Name</label><input><button>Send</button></form>
<div id="respond" class="comment-respond">Leave a reply</div><p>[contact-form-7 id="4"] [simple boat]</p>
<p><a href="/wp-json/x?rest_route=/wp/v2/posts">here</a></p>""",
        words="Own words simple boat here",
    ),
    Shape(
        "toggles and buttons",
        """<details class="wp-block-details"><summary>When is it open?</summary><p>From nine.</p></details>
<div class="wp-block-accordion-item"><h3 class="wp-block-accordion-heading"><button aria-expanded="false"><span>May
dogs come?</span></button></h3><div role="region"><p>On a lead.</p></div></div>
<div class="wp-block-buttons"><div class="wp-block-button"><a class="wp-block-button__link" href="/book">Book a
visit</a></div></div><a href="/map"><h3>The map</h3><p>All paths.</p></a>
<pre class="wp-block-verse">Round and <a href="/song">round</a>
it goes</pre><a href="/icon" aria-label="By train"><svg><path/></svg></a>""",
        words="When is it open From nine May dogs come On a lead Book a visit The map All paths Round and round it goes By train",
        links=(f"{SITE}/book", f"{SITE}/map", f"{SITE}/song", f"{SITE}/icon"),
        headings=("### May dogs come?", f"### [The map]({SITE}/map)"),
    ),
)  # fmt: skip


def elementor(with_containers: bool) -> str:
    """One page of a page builder, in the shape before or after its wrappers were left out."""

    def widget(kind: str, html: str) -> str:
        inner = f'<div class="elementor-widget-container">{html}</div>' if with_containers else html
        return f'<div class="elementor-element elementor-widget elementor-widget-{kind}">\n{inner}\n</div>\n'

    return (
        '<div data-elementor-type="wp-page" class="elementor"><section class="elementor-section"><div '
        'class="elementor-container"><div class="elementor-column">'
        + widget("heading", '<h2 class="elementor-heading-title">Grinding days</h2>')
        + widget("text-editor", "<style>.e{color:red}</style><p>Each <strong>Tuesday</strong> from ten.</p>")
        + widget("image", '<img src="/day.jpg" alt="Flour on a sieve">')
        + widget(
            "button",
            '<div class="elementor-button-wrapper"><a class="elementor-button" href="/book"><span '
            'class="elementor-button-content-wrapper"><span class="elementor-button-text">Book</span></span></a></div>',
        )
        + widget("posts", '<article class="elementor-post"><a href="/x">Copied</a></article>')
        + widget("toggle", '<div class="elementor-tab-title">Dogs?</div><div><p>On a lead.</p></div>')
        + widget("share-buttons", "<div>Share</div>")
        + "</div></div></section></div>"
    )
