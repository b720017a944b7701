/**
 * The name that a device’s certificate gives its PCI function, PCIe 6.1 §6.31.3:
 * `Vendor=1af4:Device=1041:CC=020000:REV=01:SSVID=1af4:SSID=0001:0123456789abcdef`.
 */

/** What configuration space says a function is. */
export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  /** 24 bits. */
  readonly class: number;
  readonly revision: number;
  /** null for bridges, which have none. */
  readonly subsystem: { readonly vendor: number; readonly device: number } | null;
  /** Device Serial Number, 16 hex digits; null where the function has no such capability. */
  readonly serial: string | null;
}

const NAME =
  /^(?:PCISIG:)?Vendor=([0-9a-f]{4}):Device=([0-9a-f]{4}):CC=([0-9a-f]{6}):REV=([0-9a-f]{2})(?::SSVID=([0-9a-f]{4}):SSID=([0-9a-f]{4}))?(?::([0-9a-f]{16}))?$/i;

/** `undefined` for a text that is no such name. */
export function parsePciName(text: string): PciIdentity | undefined {
  const match = NAME.exec(text);
  if (match === null) return undefined;
  const [vendor = 0, device = 0, cc = 0, revision = 0, subsystemVendor, subsystemDevice] = match
    .slice(1, 7)
    .map((part) => (part === undefined ? undefined : Number.parseInt(part, 16)));
  return {
    vendor,
    device,
    class: cc,
    revision,
    subsystem:
      subsystemVendor === undefined || subsystemDevice === undefined
        ? null
        : { vendor: subsystemVendor, device: subsystemDevice },
    serial: match[7]?.toLowerCase() ?? null,
  };
}

const digits = (value: number, count: number) => value.toString(16).padStart(count, '0');

export function pciNameText({ vendor, device, class: cc, revision, subsystem, serial }: PciIdentity): string {
  const start = `Vendor=${digits(vendor, 4)}:Device=${digits(device, 4)}:CC=${digits(cc, 6)}:REV=${digits(revision, 2)}`;
  const sub = subsystem === null ? '' : `:SSVID=${digits(subsystem.vendor, 4)}:SSID=${digits(subsystem.device, 4)}`;
  return `${start}${sub}${serial === null ? '' : `:${serial}`}`;
}

/**
 * What in `named` is not what the function is; empty where all of it is. A certificate that states no serial number is for
 * every device of its kind; one that states a serial number or a subsystem that the function does not have is not for it.
 */
export function pciNameDifferences(named: PciIdentity, found: PciIdentity): readonly string[] {
  const differences: string[] = [];
  const compare = (what: string, stated: string, seen: string) => {
    if (stated !== seen) differences.push(`${what} ${seen} instead of ${stated}`);
  };
  compare('vendor', digits(named.vendor, 4), digits(found.vendor, 4));
  compare('device', digits(named.device, 4), digits(found.device, 4));
  compare('class', digits(named.class, 6), digits(found.class, 6));
  compare('revision', digits(named.revision, 2), digits(found.revision, 2));
  const sub = (one: PciIdentity) =>
    one.subsystem === null ? 'none' : `${digits(one.subsystem.vendor, 4)}:${digits(one.subsystem.device, 4)}`;
  compare('subsystem', sub(named), sub(found));
  if (named.serial !== null) compare('serial number', named.serial, found.serial ?? 'none');
  return differences;
}
