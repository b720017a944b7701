/** Event suppression of the packed ring by descriptor (VIRTIO 1.3 §2.8.10). */

/**
 * Was the place that `event` names (offset in bits 0 to 14, wrap counter in bit 15) among the `moved` places before
 * `at`? The other side wrote `event`: a place that is not in the ring gives some answer, and costs no more than a
 * notification too many or too few for the one who asked for it.
 */
export function passedDescriptor(event: number, at: number, wrap: number, moved: number, size: number): boolean {
  // Whole rounds behind are counted as places, so that one subtraction compares positions across the wrap.
  const place = (event & 0x7fff) - (event >>> 15 === wrap ? 0 : size);
  const since = at - place - 1;
  return since >= 0 && since < moved;
}
