// SHA-256 (FIPS 180-4), written out: WebCrypto's is asynchronous and cannot take a file piece by piece, and most of
// what a verifier hashes are lines of some hundred bytes, for which asking costs more than doing it.

const K = new Int32Array(64);
const START = new Int32Array(8);

// The first 32 bits of the fractions of the cube and square roots of the first primes (sections 4.2.2 and 5.3.3).
{
  const primes = [];
  for (let n = 2; primes.length < 64; n += 1) if (primes.every((prime) => n % prime)) primes.push(n);
  const root = (prime, power, bits) => {
    // The integer root of prime * 2^(power * 32), bit by bit: no rounding of a double's can show.
    const wanted = BigInt(prime) << BigInt(power * 32);
    let found = 0n;
    for (let bit = 1n << BigInt(bits); bit; bit >>= 1n) if ((found | bit) ** BigInt(power) <= wanted) found |= bit;
    return Number(found & 0xffffffffn) | 0;
  };
  primes.forEach((prime, i) => (K[i] = root(prime, 3, 36)));
  for (let i = 0; i < 8; i += 1) START[i] = root(primes[i], 2, 37);
}

const W = new Int32Array(64);

export class Sha256 {
  #state = START.slice();
  #block = new Uint8Array(64);
  #held = 0;
  #length = 0;

  update(bytes) {
    let at = 0;
    this.#length += bytes.length;
    if (this.#held) {
      at = Math.min(64 - this.#held, bytes.length);
      this.#block.set(bytes.subarray(0, at), this.#held);
      this.#held += at;
      if (this.#held < 64) return this;
      this.#compress(this.#block, 0);
      this.#held = 0;
    }
    for (; at + 64 <= bytes.length; at += 64) this.#compress(bytes, at);
    this.#block.set(bytes.subarray(at));
    this.#held = bytes.length - at;
    return this;
  }

  /** The 32 bytes. Nothing may be added afterwards. */
  digest() {
    const length = this.#length;
    const padding = new Uint8Array(((this.#held < 56 ? 56 : 120) - this.#held) + 8);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(length / 0x20000000));
    view.setUint32(padding.length - 4, (length * 8) >>> 0);
    this.update(padding);
    const found = new Uint8Array(32);
    const out = new DataView(found.buffer);
    this.#state.forEach((word, i) => out.setInt32(i * 4, word));
    return found;
  }

  #compress(bytes, from) {
    for (let t = 0, at = from; t < 16; t += 1, at += 4)
      W[t] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    for (let t = 16; t < 64; t += 1) {
      const x = W[t - 15];
      const y = W[t - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      W[t] = (W[t - 16] + s0 + W[t - 7] + s1) | 0;
    }
    const state = this.#state;
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    let e = state[4];
    let f = state[5];
    let g = state[6];
    let h = state[7];
    for (let t = 0; t < 64; t += 1) {
      const S1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const one = (h + S1 + ((e & f) ^ (~e & g)) + K[t] + W[t]) | 0;
      const S0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const two = (S0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
}

/** SHA-256 over these bytes, one after the other. */
export function sha256(...parts) {
  const hash = new Sha256();
  for (const part of parts) hash.update(part);
  return hash.digest();
}
