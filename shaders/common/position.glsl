// Which field pixel a fragment shows.
// CUT: fragments outside the quad are dropped. Needed where the mosaic is turned or sheared and edges do not run along pixels;
// else quads are given in whole screen pixels, and nothing is left to cut (a fragment that may be dropped costs much more).

// PLAIN: the image's axes are the screen's, and one multiplication an axis does.

#if PLAIN
uniform vec2 px_step;           // field pixels per framebuffer pixel
flat in vec2 v_origin;          // field pixel at the framebuffer's origin
#else
uniform vec2 screen_size;
uniform float y_sign;
uniform mat2 screen_to_image;   // screen pixels -> field pixels
#endif

flat in vec4 v_field;           // field pixel at the screen's centre, field size in pixels
flat in vec4 v_quad;            // CUT: x0, y0, x1, y1 in field pixels

vec2 field_position() {
#if PLAIN
    return v_origin + px_step * gl_FragCoord.xy;
#else
    vec2 from_centre = (gl_FragCoord.xy - 0.5 * screen_size) * vec2(1.0, y_sign);
    vec2 p_field = v_field.xy + screen_to_image * from_centre;
#if CUT
    if (any(lessThan(p_field, v_quad.xy)) || any(greaterThanEqual(p_field, v_quad.zw)))
        discard;
#endif
    return p_field;
#endif
}
