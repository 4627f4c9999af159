"""The reviews service: a JSON API, and a page that a shop may embed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from reviews_before.moderation import assess
from reviews_before.page import render
from reviews_before.store import ReviewStore

app = FastAPI(title="Reviews")
store = ReviewStore(Path(os.environ.get("REVIEWS_DB") or Path(__file__).with_name("reviews.sqlite3")))  # noqa: TID251


class Review(BaseModel):
    author: str = Field(min_length=1, max_length=40)
    stars: int = Field(ge=1, le=5)
    text: str = Field(min_length=3, max_length=600)


class Receipt(BaseModel):
    printed: bool
    reasons: list[str]


class Rating(BaseModel):
    count: int
    average: float | None


@app.get("/products/{product_id}/reviews")
async def list_reviews(product_id: str) -> list[Review]:
    return [Review(author=r.author, stars=r.stars, text=r.text) for r in store.printed(product_id)]


@app.get("/products/{product_id}/rating")
async def rating(product_id: str) -> Rating:
    count, mean = store.rating(product_id)
    return Rating(count=count, average=None if mean is None else round(mean, 2))


@app.post("/products/{product_id}/reviews", status_code=201)
async def post_review(product_id: str, review: Review, response: Response) -> Receipt:
    verdict = assess(review.text)
    store.add(product_id, review.author, review.stars, review.text, held=verdict.held)
    if verdict.held:
        response.status_code = 202
    return Receipt(printed=not verdict.held, reasons=list(verdict.reasons))


@app.get("/embed/{product_id}")
async def embed(product_id: str, held: bool = False) -> HTMLResponse:
    return HTMLResponse(render(store.printed(product_id), store.rating(product_id)[1], held=held))


@app.post("/embed/{product_id}")
async def embed_post(product_id: str, review: Annotated[Review, Form()]) -> RedirectResponse:
    verdict = assess(review.text)
    store.add(product_id, review.author, review.stars, review.text, held=verdict.held)
    return RedirectResponse(f"{product_id}?held=true" if verdict.held else product_id, 303)
