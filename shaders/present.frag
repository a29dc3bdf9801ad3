// The summed float picture -> the 8-bit target, clamped and rounded by the framebuffer.

uniform sampler2D picture;

out vec4 color;

void main() {
    color = vec4(texelFetch(picture, ivec2(gl_FragCoord.xy), 0).rgb, 1.0);
}
