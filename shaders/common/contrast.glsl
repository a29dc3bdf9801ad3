// Contrast of one channel: raw counts -> display-referred colour, mixed by one column of M.

// MAPPED: the colours of a single channel lie in a table, v = 0 first, and what lies between two of them is mixed.

#if MAPPED
uniform sampler2D color_map;

vec3 mapped(float v) {
    float last = float(textureSize(color_map, 0).x - 1), place = v * last;
    vec3 below = texelFetch(color_map, ivec2(int(place), 0), 0).rgb;
    vec3 above = texelFetch(color_map, ivec2(int(min(place + 1.0, last)), 0), 0).rgb;
    return mix(below, above, fract(place));
}
#endif

// limits: I_inf, 1 / (I_sup - I_inf), gamma; returns (0 to 1) * color, or the map's colour
vec3 contrasted(float counts, vec3 limits, vec3 color) {
    float v = clamp((counts - limits.x) * limits.y, 0.0, 1.0);
#if GAMMA
    v = pow(v, limits.z);
#endif
#if MAPPED
    return mapped(v);
#else
    return v * color;
#endif
}
