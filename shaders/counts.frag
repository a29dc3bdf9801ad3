// The raw counts of one channel, before contrast: what the overlap rules work on. Depth test or blending do the rule:
// top and nearest keep the nearer, max takes the larger, feather sums.
// Out: counts (0 to 65535) and weight; feather: weighted counts and weight, weight = field pixels to the nearest edge.

#include "common/position.glsl"
#include "common/sampling.glsl"

out vec4 result;

void main() {
    vec2 p_field = field_position();
    float counts = field_counts(0, p_field, v_field.zw);
#if JOINTS
    if (counts < 0.0)
        discard;
#endif
#if FEATHER
    vec2 edge = min(p_field, v_field.zw - p_field);
    float weight = max(min(edge.x, edge.y), 1e-3);
    result = vec4(counts * weight, weight, 0.0, 1.0);
#else
    result = vec4(counts, 1.0, 0.0, 1.0);
#endif
}
