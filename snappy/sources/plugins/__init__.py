"""The source plug-ins beside ``files``: each is found by the entry-point group ``snappy.sources``."""
