// Raw counts of a tile at a field pixel. Returns 0 to 65535; -1 where nothing is resident.

uniform sampler2DArray tiles;   // R16, one layer per tile
uniform vec2 tile_size;         // (width, height) of a tile, pixels

// tile: layer, layer pixels per field pixel, tile origin in layer pixels; p_field and p_size: position and field size, field pixels
float tile_counts(vec4 tile, vec2 p_field, vec2 p_size) {
    if (tile.x < 0.0)
        return -1.0;
#if SMOOTH
    // half a pixel inside what the field covers of this tile: the filter never reaches a neighbour in the texture
    vec2 low = max(vec2(0.0), -tile.zw) + 0.5;
    vec2 high = min(tile_size, ceil(p_size * tile.y) - tile.zw) - 0.5;
    vec2 texel = clamp(p_field * tile.y - tile.zw, low, max(low, high));
    return texture(tiles, vec3(texel / tile_size, tile.x)).r * 65535.0;
#else
    ivec2 texel = ivec2(floor(p_field * tile.y) - tile.zw);
    return texelFetch(tiles, ivec3(texel, int(tile.x)), 0).r * 65535.0;
#endif
}
