"""The few lines that touch OpenGL: where a context comes from, and objects with owners."""
