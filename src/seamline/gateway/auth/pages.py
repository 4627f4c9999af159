"""The few pages that the gateway itself shows to people. No scripts; light or dark as the reader has it."""

from __future__ import annotations

import html

_FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif;
    --paper: #fff; --ground: #f4f1ea; --ink: #1f2328; --soft: #5d646d; --line: #d5d0c4; --accent: #9a3412;
    --on: #fff }}
  @media (prefers-color-scheme: dark) {{ :root {{
    --paper: #1d2125; --ground: #14171a; --ink: #eceae4; --soft: #a2a9b1; --line: #3a4149;
    --accent: #fdba74; --on: #1f2328 }} }}
  * {{ box-sizing: border-box }}
  body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.25rem;
    background: var(--ground); color: var(--ink) }}
  main {{ width: 100%; max-width: 24rem; padding: 2rem 1.75rem; background: var(--paper);
    border: 1px solid var(--line); border-radius: 14px }}
  h1 {{ font-size: 1.45rem; line-height: 1.25; margin: 0 0 .35rem; letter-spacing: -.01em }}
  p {{ margin: 0 0 1.25rem; color: var(--soft) }}
  p:last-child {{ margin-bottom: 0 }}
  label {{ display: block; margin: 0 0 .3rem; font-weight: 600; font-size: .925rem }}
  input {{ width: 100%; font: inherit; padding: .65rem .75rem; margin: 0 0 1.1rem; color: inherit;
    background: transparent; border: 1px solid var(--line); border-radius: 8px }}
  button, .button {{ display: block; width: 100%; font: inherit; font-weight: 600; padding: .7rem 1rem; cursor: pointer;
    text-align: center; text-decoration: none; color: var(--on); background: var(--accent); border: 0;
    border-radius: 8px }}
  input:focus-visible, button:focus-visible, a:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 2px }}
  .problem {{ color: inherit; padding: .6rem .8rem; border-left: 4px solid var(--accent); background: var(--ground) }}
  .note {{ font-size: .85rem; margin: 1.25rem 0 0 }}
</style>
<main>
{body}
</main>
</html>
"""


def _page(title: str, body: str) -> str:
    return _FRAME.format(title=html.escape(title), body=body)


def message_page(title: str, text: str, again: str) -> str:
    """A sentence, and where to go on."""
    way = (
        f'<a class="button" href="{html.escape(again)}">Sign in</a>'
        if again
        else '<a class="button" href="/">Go on</a>'
    )
    return _page(title, f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(text)}</p>\n{way}")


def sign_out_page(name: str, action: str) -> str:
    return _page(
        "Sign out",
        f"<h1>Sign out?</h1>\n<p>You are signed in as {html.escape(name)}.</p>\n"
        f'<form method="post" action="{html.escape(action)}"><button>Sign out</button></form>',
    )


def sign_in_page(app: str, action: str, ticket: str, *, name: str = "", problem: str = "") -> str:
    """The form of the development identity provider."""
    trouble = f'<p class="problem" role="alert">{html.escape(problem)}</p>\n' if problem else ""
    first, second = ("", " autofocus") if name else (" autofocus", "")
    body = f"""<h1>Sign in</h1>
<p>to {html.escape(app)}</p>
{trouble}<form method="post" action="{html.escape(action)}">
<input type="hidden" name="ticket" value="{html.escape(ticket)}">
<label for="name">Name</label>
<input id="name" name="name" value="{html.escape(name)}" autocomplete="username" autocapitalize="none"
  spellcheck="false" maxlength="100" required{first}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="200" required{second}>
<button>Sign in</button>
</form>
<p class="note">Development identity provider. Its users stand in a file of this application.</p>"""
    return _page(f"Sign in to {app}", body)
