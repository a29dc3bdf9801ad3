// A field's outline: four corners per instance. In: outlines, RGBA32F, one row per field as row 0 of mosaic.vert.

uniform samplerBuffer outlines;
uniform vec2 screen_size;
uniform float y_sign;
uniform mat2 image_to_screen;

void main() {
    vec4 field = texelFetch(outlines, gl_InstanceID);
    vec2 corner = vec2((gl_VertexID + 1) >> 1 & 1, gl_VertexID >> 1);
    vec2 from_centre = image_to_screen * (corner * field.zw - field.xy);
    gl_Position = vec4(2.0 * from_centre / screen_size * vec2(1.0, y_sign), 0.0, 1.0);
}
