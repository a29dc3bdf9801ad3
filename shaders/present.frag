// The summed float picture -> the 8-bit target, clamped and rounded by the framebuffer. ON_WHITE: it is taken from white.

uniform sampler2D picture;

out vec4 color;

void main() {
    vec3 rgb = texelFetch(picture, ivec2(gl_FragCoord.xy), 0).rgb;
#if ON_WHITE
    rgb = 1.0 - rgb;
#endif
    color = vec4(rgb, 1.0);
}
