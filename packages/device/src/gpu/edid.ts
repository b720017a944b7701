/** What a display says of itself: VESA E-EDID 1.4, one block, one detailed timing. */

const BLOCK = 128;

/** For a display of so many pixels, at most 4095 each way. */
export function displayEdid(width: number, height: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  bytes.set([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
  // Three letters of five bits: ALK. Product 1, week 1 of 2026, EDID 1.4.
  const maker = ((1 << 10) | (12 << 5) | 11) & 0xffff;
  bytes.set([maker >> 8, maker & 0xff, 1, 0, 0, 0, 0, 0, 1, 36, 1, 4], 8);
  // Digital, 8 bits a colour; size unknown; gamma 2.2; the preferred timing is the first; sRGB.
  bytes.set([0xa0, 0, 0, 120, 0x06], 20);
  bytes.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 25);
  bytes.fill(1, 38, 54); // no standard timings
  bytes.set(timing(width, height), 54);
  bytes.set(named(0xfc, 'Airlock'), 72);
  bytes.set([0, 0, 0, 0x10], 90); // unused
  bytes.set([0, 0, 0, 0x10], 108);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes[127] = (256 - (sum & 0xff)) & 0xff;
  return bytes;
}

/** 18 bytes: pixel clock in 10 kHz for 60 pictures a second, then sizes and blanking with their high bits apart. */
function timing(width: number, height: number): number[] {
  const [blankX, blankY] = [160, 40];
  const clock = Math.min(0xffff, Math.round(((width + blankX) * (height + blankY) * 60) / 10_000));
  const low = (value: number) => value & 0xff;
  const high = (a: number, b: number) => ((a >> 8) << 4) | (b >> 8);
  return [
    ...[low(clock), clock >> 8, low(width), low(blankX), high(width, blankX)],
    ...[low(height), low(blankY), high(height, blankY)],
    ...[48, 32, 0x35, 0, 0, 0, 0, 0, 0, 0x18],
  ];
}

/** A display descriptor of text. */
function named(tag: number, text: string): number[] {
  const letters = Array.from({ length: 13 }, (_, i) =>
    i < text.length ? text.charCodeAt(i) : i === text.length ? 0x0a : 0x20,
  );
  return [0, 0, 0, tag, 0, ...letters];
}
