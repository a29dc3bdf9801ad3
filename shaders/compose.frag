// Adds one channel to the picture: counts buffer -> contrast -> colour. Blended additively into a float framebuffer.
// In: counts (r) and weight (g) per screen pixel; weight 0 where no field of this channel lies.
// UNMIXED: one component of the sums of unmix.frag instead; far below zero where something is missing.

uniform sampler2D counts;
#if UNMIXED
uniform int component;
#endif
uniform vec3 limits;
uniform vec3 channel_color;

#include "common/contrast.glsl"

out vec4 color;

void main() {
#if UNMIXED
    float value = texelFetch(counts, ivec2(gl_FragCoord.xy), 0)[component];
    if (value < -1e29)
        discard;
#else
    vec2 merged = texelFetch(counts, ivec2(gl_FragCoord.xy), 0).rg;
    if (merged.g <= 0.0)
        discard;
    float value = merged.r / merged.g;
#endif
    color = vec4(contrasted(value, limits, channel_color), 1.0);
}
