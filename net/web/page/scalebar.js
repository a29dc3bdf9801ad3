// A scale bar of a round length: 1, 2 or 5 of a unit and as many tens.

const UNITS = [["nm", 1e-3], ["µm", 1], ["mm", 1e3]];

/** The longest round length of at most `longestPx`: {text, widthPx}; `pxPerUm` are pixels per µm. */
export function scaleBar(pxPerUm, longestPx) {
  const longestUm = longestPx / pxPerUm;
  const power = 10 ** Math.floor(Math.log10(longestUm));
  const um = [5, 2, 1].map((step) => step * power).find((length) => length <= longestUm * (1 + 1e-9)) ?? power;
  const [unit, size] = UNITS.filter(([, size]) => um >= size * (1 - 1e-9)).at(-1) ?? UNITS[0];
  return { text: `${Number((um / size).toPrecision(3))} ${unit}`, widthPx: um * pxPerUm };
}
