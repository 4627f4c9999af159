"""The page that a shop embeds."""

from __future__ import annotations

from html import escape

from reviews_before.store import Stored

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reviews</title><style>
:root {{ color-scheme: light dark; }}
* {{ box-sizing: border-box; min-width: 0; }}
body {{ font: 1rem/1.55 system-ui, sans-serif; margin: 0; padding: 1.3rem 1.5rem;
  color: #2b2f36; background: #fffdf9; }}
h2 {{ font: 500 1.15rem Georgia, serif; margin: 0 0 .8rem; }}
ul {{ list-style: none; padding: 0; margin: 0 0 1.4rem; }}
li {{ padding: .7rem 0; border-bottom: 1px solid #8883; }}
.stars {{ color: #b9532f; letter-spacing: .1em; }}
.held {{ background: #8882; padding: .6rem .9rem; border-radius: .6rem; }}
form {{ display: grid; grid-template-columns: 1fr auto; gap: .6rem; max-width: 36rem; }}
textarea {{ grid-column: span 2; min-height: 4.5rem; }}
button {{ justify-self: start; padding-inline: 1.2rem; cursor: pointer; }}
input, select, textarea, button {{ font: inherit; padding: .45rem .7rem;
  border-radius: .5rem; border: 1px solid #8886; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ece6da; background: #24282b; }} .stars {{ color: #e58b66; }} }}
</style></head><body>
<h2>{summary}</h2>{notice}
<ul>{reviews}</ul>
<form method="post"><input name="author" aria-label="Your name" placeholder="Your name" required maxlength="40">
<select name="stars" aria-label="Stars">
<option value="5">5 stars</option><option value="4">4 stars</option><option value="3">3 stars</option>
<option value="2">2 stars</option><option value="1">1 star</option></select>
<textarea name="text" aria-label="Your review" placeholder="How is it, after a while?"
 required minlength="3" maxlength="600"></textarea>
<button>Send</button></form>
</body></html>
"""


def render(reviews: list[Stored], mean: float | None, *, held: bool) -> str:
    return _PAGE.format(
        summary="Nobody has written yet. Be the first." if mean is None else f"{mean:.1f} of 5 stars",
        notice='<p class="held">Thank you. We read it before it is printed.</p>' if held else "",
        reviews="".join(
            f'<li><span class="stars" aria-label="{r.stars} of 5 stars">{"★" * r.stars}{"☆" * (5 - r.stars)}</span> '
            f"<b>{escape(r.author)}</b><br>{escape(r.text)}</li>"
            for r in reviews
        ),
    )
