"""How the library's tables came to be, one step a file in `versions/`; run by `rawmosaic.storage.database.migrating`."""
