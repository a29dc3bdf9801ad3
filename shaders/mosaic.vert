// Places one quad per instance: the part of a field that one tile covers, or (JOINTS) the strip where tiles of a field meet.
// In:  quads, a table of RGBA32F rows (viewer/plan.py writes it); per instance
//        row 0      field pixel that lies at the centre of the screen; the field's size in pixels
//        row 1      the quad, x0, y0, x1, y1: in whole screen pixels; CUT: in field pixels
//        row 2      field centre, in screen pixels from the screen's centre; -; depth where drawing order decides (top)
//        row 3 + c  channel c: layer of the tile (-1: nothing resident), layer pixels per field pixel, tile origin in layer pixels
//      JOINTS:
//        row 3      where four tiles meet, field pixels; layer pixels per field pixel
//        row 4 + n * CHANNELS + c   as row 3 + c above, of the tile and its right, lower and lower right neighbour (n = 0 to 3)
// Out: flat copies of these for the fragment shader. Frame: field pixels x right, y down; screen pixels likewise.

uniform samplerBuffer quads;
uniform vec2 screen_size;       // pixels
uniform float y_sign;           // +1: first row of the framebuffer is the top of the screen; -1: it is the bottom
uniform mat2 image_to_screen;   // field pixels -> screen pixels
uniform float margin_px;        // field pixels; the fragment shader cuts to the exact edge (CUT)
uniform float depth_scale;      // screen pixels^-2; 0 unless the nearest centre wins

flat out vec4 v_field;
flat out vec4 v_quad;
#if JOINTS
flat out int v_joint;
#else
flat out vec4 v_tile;
flat out float v_layer[CHANNELS];
#if MIXED
flat out vec3 v_own[CHANNELS];
#else
uniform vec2 tile_size;
flat out vec4 v_bounds;
#endif
#endif
#if PLAIN
uniform vec2 px_step;           // field pixels per framebuffer pixel
flat out vec2 v_origin;
#endif

#include "common/bounds.glsl"

void main() {
#if JOINTS
    int base = gl_InstanceID * (4 + 4 * CHANNELS);
    v_joint = base + 3;
#else
    int base = gl_InstanceID * (3 + CHANNELS);
    v_tile = texelFetch(quads, base + 3);
    for (int c = 0; c < CHANNELS; ++c) {
        vec4 tile = texelFetch(quads, base + 3 + c);
        v_layer[c] = tile.x;
#if MIXED
        v_own[c] = tile.yzw;
#endif
    }
#endif
    v_field = texelFetch(quads, base);
    v_quad = texelFetch(quads, base + 1);
    vec4 placing = texelFetch(quads, base + 2);

#if !JOINTS && !MIXED
    v_bounds = texel_bounds(v_tile.yzw, v_field.zw, tile_size);
#endif
#if PLAIN
    v_origin = v_field.xy - 0.5 * screen_size * px_step;
#endif

    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
#if CUT
    vec2 p_field = mix(v_quad.xy - margin_px, v_quad.zw + margin_px, corner);
    vec2 from_centre = image_to_screen * (p_field - v_field.xy);
#else
    vec2 from_centre = mix(v_quad.xy, v_quad.zw, corner) - 0.5 * screen_size;
#endif

    // |p - c|^2 - |p|^2 is linear in p, so the rasteriser interpolates it exactly: nearest centre wins the depth test
    float to_centre = dot(placing.xy, placing.xy) - 2.0 * dot(from_centre, placing.xy);
    gl_Position = vec4(2.0 * from_centre / screen_size * vec2(1.0, y_sign), to_centre * depth_scale + placing.w, 1.0);
}
