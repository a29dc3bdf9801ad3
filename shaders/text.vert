// A picture of text in the corner of the screen, pixel for pixel. rect: x0, y0, x1, y1 in screen pixels, y down.

uniform vec2 screen_size;
uniform float y_sign;
uniform vec4 rect;

out vec2 texel;

void main() {
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    texel = corner * (rect.zw - rect.xy);
    vec2 from_centre = mix(rect.xy, rect.zw, corner) - 0.5 * screen_size;
    gl_Position = vec4(2.0 * from_centre / screen_size * vec2(1.0, y_sign), 0.0, 1.0);
}
