// Places one quad per instance: the part of a field that one tile covers.
// In:  quads, a table of RGBA32F rows, 3 + CHANNELS rows per instance (viewer/renderer.py writes it):
//        row 0      centre_px.xy  field pixel that lies at the centre of the screen; size_px.xy  the field's size in pixels
//        row 1      the quad in field pixels: x0, y0, x1, y1
//        row 2      field centre, in screen pixels from the screen's centre; row of a joint (common/sampling.glsl) or -1; -
//        row 3 + c  channel c: layer of the tile (-1: nothing resident), layer pixels per field pixel, tile origin in layer pixels
// Out: flat copies of these for the fragment shader. Frame: field pixels x right, y down; screen pixels likewise.

uniform samplerBuffer quads;
uniform vec2 screen_size;       // pixels
uniform float y_sign;           // +1: first row of the framebuffer is the top of the screen; -1: it is the bottom
uniform mat2 image_to_screen;   // field pixels -> screen pixels
uniform float margin_px;        // field pixels; the fragment shader cuts to the exact edge
uniform float depth_scale;      // screen pixels^-2

flat out vec4 v_field;
flat out vec4 v_quad;
flat out vec4 v_tile[CHANNELS];
flat out int v_joint;

void main() {
    int base = gl_InstanceID * (3 + CHANNELS);
    v_field = texelFetch(quads, base);
    v_quad = texelFetch(quads, base + 1);
    vec3 placing = texelFetch(quads, base + 2).xyz;
    vec2 centre = placing.xy;
    v_joint = int(placing.z);
    for (int c = 0; c < CHANNELS; ++c)
        v_tile[c] = texelFetch(quads, base + 3 + c);

    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    vec2 p_field = mix(v_quad.xy - margin_px, v_quad.zw + margin_px, corner);
    vec2 from_centre = image_to_screen * (p_field - v_field.xy);

    // |p - c|^2 - |p|^2 is linear in p, so the rasteriser interpolates it exactly: nearest centre wins the depth test
    float depth = (dot(centre, centre) - 2.0 * dot(from_centre, centre)) * depth_scale;
    gl_Position = vec4(2.0 * from_centre / screen_size * vec2(1.0, y_sign), depth, 1.0);
}
