// An irreducible polynomial over GF(2) of degree 53, which each repository has: restic cuts files by it.

import { randomBytes } from "node:crypto";

const DEGREE = 53;

export function randomPolynomial() {
  for (;;) {
    const lower = BigInt(`0x${randomBytes(7).toString("hex")}`) & ((1n << BigInt(DEGREE)) - 1n);
    const candidate = lower | (1n << BigInt(DEGREE)) | 1n;
    if (isIrreducible(candidate)) return candidate.toString(16);
  }
}

/** Rabin's test, for a prime degree: no root, and x to the power of 2^degree is x. */
function isIrreducible(polynomial) {
  if (polynomial.toString(2).replaceAll("0", "").length % 2 === 0) return false;
  let power = 2n;
  for (let square = 0; square < DEGREE; square++) power = remainder(squared(power), polynomial);
  return power === 2n;
}

/** A square keeps each term and doubles its exponent. */
const squared = (polynomial) => BigInt(`0b${[...polynomial.toString(2)].join("0")}`);

function remainder(polynomial, modulus) {
  const degree = (of) => of.toString(2).length - 1;
  while (polynomial && degree(polynomial) >= DEGREE) polynomial ^= modulus << BigInt(degree(polynomial) - DEGREE);
  return polynomial;
}
