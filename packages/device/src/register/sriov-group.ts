/**
 * A VIRTIO physical function with virtual ones (VIRTIO 1.4 §2.16.1 SR_IOV, PCIe 6.0 §9), for a VMM that knows nothing of
 * SR-IOV: to it they are so many functions of one slot. Firmware finds and places them all as ordinary ones; with the
 * first write to the physical function's capability an operating system takes over that knows SR-IOV: from then on
 * virtual functions show the configuration space that the standard gives them, and answer only while they are enabled.
 *
 * The capability says of the virtual functions' BARs where firmware put them: a VMM that maps each function's BARs by its
 * own registers has mapped them there, and would not follow if software moved them.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { ServedFunction } from '@airlock/transport/vfio-user/served-function.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import type { Capability } from '../pci/capability.ts';
import type { Register } from '../pci/register.ts';
import { Sriov } from '../pci/sriov.ts';
import type { DeviceSide } from './device-side.ts';
import {
  barAddress32,
  type SharedWindow,
  VIRTIO_BARS,
  type VirtioPciFunction,
  virtioPciFunction,
} from './virtio-pci.ts';

/** VIRTIO 1.4 §6: the physical function's driver may make virtual ones. */
const SR_IOV = 37;
/** Functions of a slot behind function 0, without ARI. */
export const VIRTUAL_FUNCTIONS_LIMIT = 7;
const CONFIG_REGION = 7;

export interface SriovGroupOptions {
  readonly violated?: (why: Problem) => void;
  /** Virtual functions came (their number) or went (0). */
  readonly changed?: (enabled: number) => void;
  /** Of each function, the physical one first: capabilities besides those of virtio. */
  readonly capabilities?: (index: number) => readonly Capability[];
}

export interface SriovGroup {
  /** Function 0 of the slot. */
  readonly physical: ServedFunction;
  /** Functions 1, 2, ... of the same slot. */
  readonly virtual: readonly ServedFunction[];
  readonly sides: readonly DeviceSide[];
}

type WithSharedMemory = ServedDevice & { readonly sharedMemory?: readonly SharedWindow[] };

/**
 * Devices of one type as one group. Problems that `violated` hears: `sriov-not-placed`. Codes: those of
 * `virtioPciFunction`, `pci-virtual-functions-invalid`.
 */
export function sriovGroup(
  physical: ServedDevice,
  virtual: readonly ServedDevice[],
  options: SriovGroupOptions = {},
): Result<SriovGroup> {
  const all = [physical, ...virtual];
  if (virtual.length === 0 || virtual.length > VIRTUAL_FUNCTIONS_LIMIT) {
    return fail('pci-virtual-functions-invalid', `${virtual.length} virtual functions; from 1 to 7 fit into a slot`);
  }
  if (all.some(({ type }) => type.name !== physical.type.name)) {
    return fail('pci-virtual-functions-invalid', 'the virtual functions of a physical one are all of its type');
  }
  if (all.some((device) => ((device as WithSharedMemory).sharedMemory ?? []).length > 0)) {
    return fail(
      'pci-virtual-functions-invalid',
      `${physical.type.name}: its shared memory would need a BAR of its own`,
    );
  }
  const group = new Group(options);
  return group.make(physical, virtual);
}

class Group {
  private readonly options: SriovGroupOptions;
  /** Software that knows SR-IOV has taken over. */
  private taken = false;
  /** Where firmware put the virtual functions' BARs; 0 when it did not, or not in a row. */
  private readonly placed = new Map<number, number>();
  private readonly virtual: VirtioPciFunction[] = [];
  private sriov: Sriov | null = null;

  constructor(options: SriovGroupOptions) {
    this.options = options;
  }

  make(physical: ServedDevice, virtual: readonly ServedDevice[]): Result<SriovGroup> {
    const { violated, capabilities = () => [] } = this.options;
    const told = violated === undefined ? {} : { violated };
    for (const [i, device] of virtual.entries()) {
      const made = virtioPciFunction(device, {
        ...told,
        virtual: () => this.taken,
        capabilities: capabilities(i + 1),
      });
      if (!made.ok) return made;
      this.virtual.push(made.value);
    }
    const sriov = Sriov.create({
      total: virtual.length,
      device: 0x1040 + (VIRTIO_TYPES[physical.type.name as VirtioTypeName] ?? 0),
      bars: VIRTIO_BARS,
      placed: (bar) => this.placed.get(bar) ?? 0,
      changed: (enabled) => this.changed(enabled),
    });
    if (!sriov.ok) return sriov;
    this.sriov = sriov.value;
    const made = virtioPciFunction(physical, {
      ...told,
      offers: [SR_IOV],
      capabilities: [this.watched(sriov.value.capability), ...capabilities(0)],
    });
    if (!made.ok) return made;
    const { pci } = made.value;
    return ok({
      physical: over(pci, {
        reset: () => {
          // The VMM's own reset, not one that software asks of the function: firmware comes next.
          this.taken = false;
          pci.reset();
        },
        detach: () => {
          this.taken = false;
          pci.detach();
        },
      }),
      virtual: this.virtual.map((each, i) => this.face(each, i)),
      sides: [made.value, ...this.virtual].map(({ side }) => side),
    });
  }

  /** The capability, whose control register tells of the first write to it. */
  private watched(capability: Capability): Capability {
    return {
      ...capability,
      registers: capability.registers.map(
        (register): Register =>
          register.name !== 'sriov_control'
            ? register
            : {
                name: register.name,
                bytes: register.bytes,
                read: () => register.read(),
                write: (value, enabled) => {
                  this.take();
                  register.write(value, enabled);
                },
                reset: () => register.reset?.(),
              },
      ),
    };
  }

  private take(): void {
    if (this.taken) return;
    for (const { index, size } of VIRTIO_BARS) {
      const places = this.virtual.map(({ pci }) => barAddress32(pci, index));
      const [first = 0] = places;
      this.placed.set(index, places.every((place, i) => place === first + i * size) ? first : 0);
    }
    this.taken = true;
    for (const { pci } of this.virtual) pci.reset();
  }

  /** Are the BARs of all that are enabled where the VMM has them? Larger pages than 4 KiB spread small ones. */
  private get inPlace(): boolean {
    const last = Math.max(this.sriov?.enabled ?? 0, 1) - 1;
    return VIRTIO_BARS.every(({ index, size }) => {
      const placed = this.placed.get(index) ?? 0;
      const at = (each: number) => this.sriov?.barAddress(index, each);
      return placed !== 0 && at(0) === placed && at(last) === placed + last * size;
    });
  }

  private changed(enabled: number): void {
    if (enabled > 0 && !this.inPlace) {
      this.options.violated?.({
        code: 'sriov-not-placed',
        message: 'the virtual functions were enabled elsewhere than firmware placed them; they do not answer',
        hint: 'function 0 and its virtual ones from 1 on in one slot, there from the start of the machine',
      });
    }
    // None of them comes as another left it.
    for (const { pci } of this.virtual) pci.reset();
    this.options.changed?.(enabled);
  }

  private answers(index: number): boolean {
    return !this.taken || (index < (this.sriov?.enabled ?? 0) && this.inPlace);
  }

  /** What a VMM sees of a virtual function: all ones while it is not there (§9.3.3.3.1), memory only with VF MSE. */
  private face({ pci }: VirtioPciFunction, index: number): ServedFunction {
    const reaches = (region: number) =>
      this.answers(index) && (!this.taken || region === CONFIG_REGION || this.sriov?.memoryEnabled === true);
    return over(pci, {
      readRegion: (region, offset, into) => {
        if (reaches(region)) pci.readRegion(region, offset, into);
        else into.fill(0xff);
      },
      writeRegion: (region, offset, bytes) => {
        if (reaches(region)) pci.writeRegion(region, offset, bytes);
      },
    });
  }
}

/** The same function with some of its ways replaced. */
function over(served: ServedFunction, ways: Partial<ServedFunction>): ServedFunction {
  return {
    regionSizes: served.regionSizes,
    interrupts: served.interrupts,
    get lineAsserted() {
      return served.lineAsserted;
    },
    attach: (link) => served.attach(link),
    detach: () => served.detach(),
    quiesce: () => served.quiesce(),
    memoryChanged: () => served.memoryChanged(),
    readRegion: (region, offset, into) => served.readRegion(region, offset, into),
    writeRegion: (region, offset, bytes) => served.writeRegion(region, offset, bytes),
    reset: () => served.reset(),
    ...ways,
  };
}
