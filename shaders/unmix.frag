// One channel's part in four unmixed ones: counts times their shares. Blended additively into a float framebuffer.
// In: counts (r) and weight (g) per screen pixel. Out: sums of counts; where the channel is not there, those that need it are put so
// far below zero that nothing brings them back.

uniform sampler2D counts;
uniform vec4 shares;

out vec4 sums;

void main() {
    vec2 merged = texelFetch(counts, ivec2(gl_FragCoord.xy), 0).rg;
    sums = merged.g > 0.0 ? shares * (merged.r / merged.g) : -1e30 * vec4(notEqual(shares, vec4(0.0)));
}
