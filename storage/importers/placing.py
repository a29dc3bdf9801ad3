"""What to do about images that nothing places: said wherever they are refused."""

from __future__ import annotations


def how_to_place(example: str) -> str:
    """The advice, with the name of an image for an example."""
    return (
        "write a positions.csv beside the images and open their folder: its first line is file,channel,x_um,y_um and each image "
        f"has a line, such as {example},DAPI,1200.5,850 (the image's centre in µm, x right, y down)"
    )
