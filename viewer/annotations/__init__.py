"""What people draw on a slide: points, lines and areas with names and classes; edited, measured, and kept as GeoJSON."""
