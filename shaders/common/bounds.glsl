// What a field covers of a tile: first and last texel. The filter is held between them, so it never reaches what lies beside in
// the texture. place: layer pixels per field pixel, tile origin in layer pixels; p_size: field size, field pixels.

vec4 texel_bounds(vec3 place, vec2 p_size, vec2 tile) {
    vec2 low = max(vec2(0.0), -place.yz);
    vec2 high = min(tile, ceil(p_size * place.x) - place.yz) - 1.0;
    return vec4(low, max(low, high));
}
