"""The book of sales."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

metadata = MetaData()
sales = Table("sales", metadata, Column("id", Integer, primary_key=True), Column("sku", String(40), nullable=False))
