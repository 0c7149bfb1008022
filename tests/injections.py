"""Names and texts that are markup, code or steering somewhere, and what pages of them consist of."""

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

TEXTS = {
    "yaml_key": "x\nlicense: mit\ntags: [free]",
    "yaml_flow": "{a: [1, 2], b: *c}",
    "yaml_tag": "!!python/object/apply:os.system ['true']",
    "yaml_end": "x\n---\n# A card",
    "yaml_boolean": "no",
    "yaml_comment": "x #y: z",
    "pipe": "a | b || c \\| d",
    "heading": "x\n# A heading\n\n- an item",
    "item": "- [ ] 1. item",
    "link": "[a](javascript:alert(1)) ![b](http://x/y.png)",
    "code": "`a` ``b`` ```\nc",
    "fence": "```\n~~~\n# x",
    "emphasis": "**a** _b_ ~~c~~ a_b_c \\",
    "comment": "<!-- evaluate: end --> --> x",
    "script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" onload='alert(1)' class=\"after",
    "svg": "</title></svg><script>alert(1)</script>]]>",
    "entity": "&lt;b&gt; &#60;i&#62;",
    "jinja": "{{ 7 * 7 }} {% include 'x' %} {0} {name} %s",
    "formula": "$x^$ $\\frac{1}{",
    "dollar": "a$b$c$",
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07\r\x08\x9b",
    "bidi": "a\u202etxt.exe\u2066 \u200f\ufeff\u200b",
    "right_to_left": "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "wide": "\u6771\u4eac \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "quotes": "a \"b\" 'c' \\\"d\\'",
    "hidden": "_nolegend_",
    "nearly_nothing": "\u200b",
    "long": "x" * 5000,
}


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, *(name for name, _ in attributes)))

    def handle_comment(self, data):
        self.found.append(("comment",))

    def handle_decl(self, decl):
        self.found.append((decl,))


def elements(html):
    """Return the elements of a page in their order, with the names of their attributes; of drawings, how many."""
    parser = _Elements()
    drawings = re.compile("<svg .*?</svg>", re.DOTALL)
    parser.feed(drawings.sub("<svg></svg>", html))
    return parser.found


def blocks(markdown):
    """Return what Markdown consists of, in its order, without the texts."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = []
    for token in parser.parse(markdown):
        found.append(token.type)
        found += [inner.type for inner in token.children or () if inner.type != "text"]
    return found


def columns(markdown):
    """Return how many cells each line of a table has."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) - 2 for line in lines]
