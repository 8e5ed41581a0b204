// restic's seal: AES-256-CTR, authenticated with Poly1305-AES; and the key that a password stands for.

import { poly1305 } from "@noble/ciphers/_poly1305";
import { createCipheriv, randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { Problem } from "./problem.mjs";

const derive = promisify(scrypt);
const [IV, MAC] = [16, 16];

export class Key {
  constructor(encrypt, k, r) {
    Object.assign(this, { encrypt, k, r });
  }

  static random() {
    return new Key(randomBytes(32), randomBytes(16), randomBytes(16));
  }

  static async ofPassword(password, { salt, N, r, p }) {
    const maxmem = 128 * r * (N + p + 2) + (1 << 20);
    const made = await derive(password, Buffer.from(salt, "base64"), 64, { N, r, p, maxmem });
    return new Key(made.subarray(0, 32), made.subarray(32, 48), made.subarray(48));
  }

  static ofJson(text) {
    const { mac, encrypt } = JSON.parse(text);
    return new Key(...[encrypt, mac.k, mac.r].map((part) => Buffer.from(part, "base64")));
  }

  toJson() {
    const [k, r, encrypt] = [this.k, this.r, this.encrypt].map((part) => part.toString("base64"));
    return JSON.stringify({ mac: { k, r }, encrypt });
  }

  seal(plain) {
    const iv = randomBytes(IV);
    const ciphertext = this.#crypt(iv, plain);
    return Buffer.concat([iv, ciphertext, this.#mac(iv, ciphertext)]);
  }

  /** Nothing is decrypted before it is authenticated. */
  open(sealed) {
    const [iv, ciphertext] = [sealed.subarray(0, IV), sealed.subarray(IV, -MAC)];
    if (sealed.length < IV + MAC || !timingSafeEqual(this.#mac(iv, ciphertext), sealed.subarray(-MAC))) {
      throw new Problem("unauthentic", "sealed bytes do not open with this key");
    }
    return this.#crypt(iv, ciphertext);
  }

  #crypt(iv, data) {
    return createCipheriv("aes-256-ctr", this.encrypt, iv).update(data);
  }

  #mac(iv, ciphertext) {
    const block = createCipheriv("aes-128-ecb", this.k, null).update(iv);
    return poly1305(ciphertext, Buffer.concat([this.r, block]));
  }
}
