"""Snappy on NATS. nats-py needs aiohttp, half of its time to load and of its memory, for websockets alone."""

from snappy import lean

with lean.without("aiohttp"):
    import nats.aio.client  # noqa: F401
