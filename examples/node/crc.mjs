// CRC-32 as in ISO 3309 and zlib; Node has it itself from 22.2 on.

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** Of `data`, going on from the CRC of what stood before it. */
export function crc32(data, before = 0) {
  let crc = ~before;
  for (let at = 0; at < data.length; at++) crc = TABLE[(crc ^ data[at]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}
