"""FastAPI on uvicorn, called by httpx: the usual pair for services in Python.

Typed endpoints with pydantic models, one shared ``httpx.AsyncClient`` with its pool as large as the load.
"""
