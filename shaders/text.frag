// Text, blended over the picture.

uniform sampler2D text;

in vec2 texel;
out vec4 color;

void main() {
    color = texelFetch(text, ivec2(texel), 0);
}
