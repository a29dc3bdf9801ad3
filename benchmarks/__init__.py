"""How fast, against what this machine can do: one question a file, floors measured in the same run (`python -m benchmarks`)."""
