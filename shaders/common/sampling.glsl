// Raw counts of a field at a field pixel. Returns 0 to 65535; -1 where nothing is resident.

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

#if SMOOTH
uniform samplerBuffer quads;

// One texel of a tile, no filter; the position is held inside the tile.
float texel_counts(vec4 tile, vec2 p_field) {
    vec2 texel = clamp(floor(p_field * tile.y - tile.zw), vec2(0.0), tile_size - 1.0);
    return texelFetch(tiles, ivec3(texel, tile.x), 0).r * 65535.0;
}

// The strip where tiles of a field meet: the four texels around the position, each from the tile it lies in.
// In: joint, a row of `quads`: where the tiles meet (field pixels), layer pixels per field pixel; then CHANNELS rows
// each of the tile, its right, lower and lower right neighbour.
void joint_counts(int joint, int channel, vec2 p_field, vec2 p_size, inout float counts) {
    // a loop that runs not at all away from joints costs less than a branch on drivers that take both sides
    float sum = 0.0, weights = 0.0;
    int taps = joint >= 0 ? 4 : 0;
    for (int tap = 0; tap < taps; ++tap) {
        vec4 meeting = texelFetch(quads, joint);
        vec2 first = floor(p_field * meeting.z - 0.5);
        vec2 fraction = p_field * meeting.z - 0.5 - first;
        vec2 side = vec2(tap & 1, tap >> 1);
        vec2 texel = clamp(first + side, vec2(0.0), ceil(p_size * meeting.z) - 1.0);
        vec2 p_tap = (texel + 0.5) / meeting.z;
        bvec2 beyond = greaterThanEqual(p_tap, meeting.xy);
        int neighbour = int(beyond.x) + 2 * int(beyond.y);
        vec4 tile = texelFetch(quads, joint + 1 + neighbour * CHANNELS + channel);
        vec2 share = mix(1.0 - fraction, fraction, side);
        float weight = tile.x < 0.0 ? 0.0 : share.x * share.y;
        sum += weight * texel_counts(tile, p_tap);
        weights += weight;
    }
    if (taps > 0)
        counts = weights > 0.0 ? sum / weights : -1.0;
}
#endif

float field_counts(vec4 tile, int joint, int channel, vec2 p_field, vec2 p_size) {
    float counts = tile_counts(tile, p_field, p_size);
#if SMOOTH
    joint_counts(joint, channel, p_field, p_size, counts);
#endif
    return counts;
}
