/** Shapes of what is read back from files and sockets. */

/** `pci:0000:00:03.0`: as inventories name devices, and nothing that could be a path or move a cursor. */
export const DEVICE_ID = /^[a-z]{1,16}:[A-Za-z0-9_.:,@+#-]{1,128}$/;

/** A plain object with no other keys than these. */
export function isRecord(value: unknown, keys: readonly string[]): value is Record<string, unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.keys(value).every((key) => keys.includes(key))
  );
}
