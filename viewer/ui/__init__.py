"""The window's panels: a thin layer in Dear ImGui that edits state and draws nothing of the mosaic itself."""
