"""Snappy: backup and restore over NATS. Holds the version and nothing else.

``fsspec.compression`` imports whatever package is called ``snappy``; so nothing here may import fsspec.
"""

__version__ = "0.1.0"
