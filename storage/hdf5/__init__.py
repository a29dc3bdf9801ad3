"""The virtual slide file (docs/format.md): names in `format`, then a writer and a reader that never import each other."""
