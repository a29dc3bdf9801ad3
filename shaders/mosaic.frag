// The patchwork in one pass: all shown channels of a tile, contrasted and mixed. For the overlap mode `top`
// where every field has every shown channel. Out: display-referred rgb, summed and clamped by the framebuffer.
// UNMIXED: SHOWN channels are made of CHANNELS read ones before contrast, shares[s * CHANNELS + c] of each; a channel is shown where
// all that it is made of is there. ON_WHITE: the sum is taken from white.

#if UNMIXED
uniform float shares[SHOWN * CHANNELS];
#else
#define SHOWN CHANNELS
#endif
uniform vec3 limits[SHOWN];
uniform vec3 colors[SHOWN];

#include "common/position.glsl"
#include "common/sampling.glsl"
#include "common/contrast.glsl"

out vec4 color;

void main() {
    vec2 p_field = field_position();
    vec3 rgb = vec3(0.0);
#if UNMIXED
    float counts[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c)
        counts[c] = field_counts(c, p_field, v_field.zw);
    for (int s = 0; s < SHOWN; ++s) {
        float sum = 0.0;
        bool there = true;
        for (int c = 0; c < CHANNELS; ++c) {
            float share = shares[s * CHANNELS + c];
            sum += share * counts[c];
#if MIXED || JOINTS
            there = there && (counts[c] >= 0.0 || share == 0.0);
#endif
        }
        if (there)
            rgb += contrasted(sum, limits[s], colors[s]);
    }
#else
    for (int c = 0; c < CHANNELS; ++c) {
        float counts = field_counts(c, p_field, v_field.zw);
#if MIXED || JOINTS
        if (counts >= 0.0)
#endif
        rgb += contrasted(counts, limits[c], colors[c]);
    }
#endif
#if ON_WHITE
    rgb = 1.0 - rgb;
#endif
    color = vec4(rgb, 1.0);
}
