// Which field pixel a fragment shows; fragments outside the quad are dropped, so that tiles and fields meet exactly.

uniform vec2 screen_size;
uniform float y_sign;
uniform mat2 screen_to_image;   // screen pixels -> field pixels

vec2 field_position(vec4 field, vec4 quad) {
    vec2 from_centre = (gl_FragCoord.xy - 0.5 * screen_size) * vec2(1.0, y_sign);
    vec2 p_field = field.xy + screen_to_image * from_centre;
    if (any(lessThan(p_field, quad.xy)) || any(greaterThanEqual(p_field, quad.zw)))
        discard;
    return p_field;
}
