// Contrast of one channel: raw counts -> display-referred colour, mixed by one column of M.

// limits: I_inf, 1 / (I_sup - I_inf), gamma; returns (0 to 1) * color
vec3 contrasted(float counts, vec3 limits, vec3 color) {
    float v = clamp((counts - limits.x) * limits.y, 0.0, 1.0);
#if GAMMA
    v = pow(v, limits.z);
#endif
    return v * color;
}
