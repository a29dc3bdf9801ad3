"""The slide database, called the library: which slides there are, where their copies lie, what they hold.

`Library` is all that others need. SQLAlchemy and Alembic (the extra `library`) are imported when it is used, not before.
"""

__all__ = ["Library"]


def __getattr__(name: str):
    if name == "Library":
        from rawmosaic.storage.database.library import Library

        return Library
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
