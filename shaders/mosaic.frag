// The patchwork in one pass: all shown channels of a tile, contrasted and mixed. For the overlap mode `top`
// where every field has every shown channel. Out: display-referred rgb, summed and clamped by the framebuffer.

uniform vec3 limits[CHANNELS];
uniform vec3 colors[CHANNELS];

#include "common/position.glsl"
#include "common/sampling.glsl"
#include "common/contrast.glsl"

out vec4 color;

void main() {
    vec2 p_field = field_position();
    vec3 rgb = vec3(0.0);
    for (int c = 0; c < CHANNELS; ++c) {
        float counts = field_counts(c, p_field, v_field.zw);
#if MIXED || JOINTS
        if (counts >= 0.0)
#endif
        rgb += contrasted(counts, limits[c], colors[c]);
    }
    color = vec4(rgb, 1.0);
}
