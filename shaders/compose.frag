// Adds one channel to the picture: counts buffer -> contrast -> colour. Blended additively into a float framebuffer.
// In: counts (r) and weight (g) per screen pixel; weight 0 where no field of this channel lies.

uniform sampler2D counts;
uniform vec3 limits;
uniform vec3 channel_color;

#include "common/contrast.glsl"

out vec4 color;

void main() {
    vec2 value = texelFetch(counts, ivec2(gl_FragCoord.xy), 0).rg;
    if (value.g <= 0.0)
        discard;
    color = vec4(contrasted(value.r / value.g, limits, channel_color), 1.0);
}
