// Raw counts of each channel of a field at a field pixel: 0 to 65535; -1 where nothing is resident.

uniform sampler2DArray tiles;   // R16, one layer per tile
uniform vec2 tile_size;         // (width, height) of a tile, pixels

#include "common/bounds.glsl"

#if JOINTS
uniform samplerBuffer quads;
flat in int v_joint;

// One texel of a tile, no filter; the position is held inside the tile.
float texel_counts(vec4 tile, vec2 p_field) {
    vec2 texel = clamp(floor(p_field * tile.y - tile.zw), vec2(0.0), tile_size - 1.0);
    return texelFetch(tiles, ivec3(texel, tile.x), 0).r * 65535.0;
}

// The strip where tiles meet: the four texels around the position, each from the tile it lies in.
float field_counts(int channel, vec2 p_field, vec2 p_size) {
    vec4 meeting = texelFetch(quads, v_joint);
    vec2 first = floor(p_field * meeting.z - 0.5);
    vec2 fraction = p_field * meeting.z - 0.5 - first;
    float sum = 0.0, weights = 0.0;
    for (int tap = 0; tap < 4; ++tap) {
        vec2 side = vec2(tap & 1, tap >> 1);
        vec2 texel = clamp(first + side, vec2(0.0), ceil(p_size * meeting.z) - 1.0);
        vec2 p_tap = (texel + 0.5) / meeting.z;
        bvec2 beyond = greaterThanEqual(p_tap, meeting.xy);
        int neighbour = int(beyond.x) + 2 * int(beyond.y);
        vec4 tile = texelFetch(quads, v_joint + 1 + neighbour * CHANNELS + channel);
        vec2 share = mix(1.0 - fraction, fraction, side);
        float weight = tile.x < 0.0 ? 0.0 : share.x * share.y;
        sum += weight * texel_counts(tile, p_tap);
        weights += weight;
    }
    return weights > 0.0 ? sum / weights : -1.0;
}

#else
flat in vec4 v_tile;            // layer of channel 0, layer pixels per field pixel, tile origin in layer pixels
flat in float v_layer[CHANNELS];
#if MIXED
flat in vec3 v_own[CHANNELS];   // as v_tile.yzw, where channels wait for tiles of different layers
#else
flat in vec4 v_bounds;          // first and last texel that the field covers of this tile
#endif

float field_counts(int channel, vec2 p_field, vec2 p_size) {
#if MIXED
    if (v_layer[channel] < 0.0)
        return -1.0;
    vec3 place = v_own[channel];
    vec4 bounds = texel_bounds(place, p_size, tile_size);
#else
    vec3 place = v_tile.yzw;
    vec4 bounds = v_bounds;
#endif
    vec2 texel = p_field * place.x - place.yz;
#if SMOOTH
    texel = clamp(texel, bounds.xy + 0.5, bounds.zw + 0.5);
    return texture(tiles, vec3(texel / tile_size, v_layer[channel])).r * 65535.0;
#else
    texel = clamp(floor(texel), bounds.xy, bounds.zw);
    return texelFetch(tiles, ivec3(texel, v_layer[channel]), 0).r * 65535.0;
#endif
}
#endif
