"""The reviews app's own tests, which know nothing of Seamline either."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviews_before.moderation import HOLD_FROM, assess
from reviews_before.page import render
from reviews_before.store import ReviewStore, Stored

APP = Path(__file__).resolve().parents[1]

# Speaks ASGI to the app in a process where importing Seamline is an error.
_ALONE = """
import asyncio, json, sys
sys.modules["seamline"] = None
from reviews_before.main import app

async def ask(method, path, value=None):
    body, out = json.dumps(value).encode() if value else b"", []
    async def receive():
        return {"type": "http.request", "body": body}
    async def send(message):
        out.append(message)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
             "headers": [(b"content-type", b"application/json")], "server": ("app", 80), "client": ("test", 1)}
    await app(scope, receive, send)
    return out[0]["status"], json.loads(b"".join(message.get("body", b"") for message in out[1:]))

async def main():
    good = {"author": "Ada", "stars": 4, "text": "It does what it says."}
    return [
        await ask("POST", "/products/thing/reviews", good),
        await ask("POST", "/products/thing/reviews", {**good, "text": "See http://example.com"}),
        await ask("GET", "/products/thing/reviews"),
        await ask("GET", "/products/thing/rating"),
    ]

print(json.dumps(asyncio.run(main())))
"""


def test_the_app_runs_where_seamline_cannot_be_imported(tmp_path: Path):
    """It was there before, and nothing was added to it."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE],
        cwd=APP,
        env={"REVIEWS_DB": str(tmp_path / "reviews.sqlite3"), "PYTHONPATH": str(APP)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    posted, held, printed, rating = json.loads(done.stdout)
    assert posted == [201, {"printed": True, "reasons": []}]
    assert held == [202, {"printed": False, "reasons": ["it holds a link"]}]
    assert printed == [200, [{"author": "Ada", "stars": 4, "text": "It does what it says."}]]
    assert rating == [200, {"count": 1, "average": 4.0}]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("It holds the morning together.", False),
        ("Buy crypto", False),
        ("Buy crypto at www.example.com", True),
        ("BUY CRYPTO NOW AND HERE", True),
        ("sooooooooo good", False),
        ("What an idiot I was", True),
    ],
)
def test_moderation_weighs_its_rules(text: str, held: bool):
    assert assess(text).held is held


@given(text=st.text(max_size=600))
def test_moderation_takes_any_text(text: str):
    """The score lies between 0 and 100, and there is a reason for every score."""
    verdict = assess(text)
    assert 0 <= verdict.score <= 100
    assert bool(verdict.reasons) == (verdict.score > 0)
    assert verdict.held == (verdict.score >= HOLD_FROM)


@given(author=st.text(min_size=1, max_size=40), text=st.text(max_size=100))
def test_nobody_writes_markup_into_the_page(author: str, text: str):
    """What people type is shown, never run."""
    shown = render([Stored(f"<script>{author}", 5, f"<img onerror=x>{text}")], 5.0, held=False)
    assert "<script" not in shown
    assert "<img" not in shown


def test_reviews_outlive_the_process(tmp_path: Path):
    """Another store on the same file sees what the first one wrote."""
    path = tmp_path / "reviews.sqlite3"
    ReviewStore(path).add("thing", "Ada", 5, "Good.", held=False)
    ReviewStore(path).add("thing", "Bo", 1, "Bad.", held=True)
    assert ReviewStore(path).printed("thing") == [Stored("Ada", 5, "Good.")]
    assert ReviewStore(path).rating("thing") == (1, 5.0)
