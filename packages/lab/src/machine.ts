/** The lab's machine: what a confidential VM typically gets from its host, and some that it should not want. */
import type { Part } from './qemu.ts';

/** Shared memory only: modern VIRTIO behind the DMA API, so that `swiotlb=force` bounces every buffer. */
const MODERN = { 'disable-legacy': 'on', iommu_platform: 'on' } as const;

/** Host-side words for a person: what each slot of the machine holds. */
export const SLOTS: Readonly<Record<string, string>> = {
  '00.0': 'host bridge',
  '02.0': 'root disk',
  '03.0': 'network card',
  '04.0': 'console',
  '05.0': 'entropy',
  '06.0': 'balloon',
  '07.0': '9p share',
  '08.0': 'graphics card',
  '09.0': 'keyboard',
  '0a.0': 'NVMe drive',
  '10.0': 'hot-plug port',
  '11.0': 'hot-plug port',
  '1f.0': 'ISA bridge',
  '1f.2': 'SATA controller',
  '1f.3': 'SMBus controller',
};

/** What is brought to the machine beside its own devices. */
export interface MachineChange {
  readonly parts?: readonly Part[];
  /** Other processes map the guest's memory. */
  readonly sharedMemory?: boolean;
  /** MiB. */
  readonly memory?: number;
  /** Words after CMDLINE. */
  readonly cmdline?: string;
  /** Folder of a software TPM's state: firmware then measures what boots. */
  readonly tpmState?: string;
}

/** Several as one. */
export function joinChanges(changes: readonly MachineChange[]): MachineChange {
  const whole = Object.assign({}, ...changes) as MachineChange;
  const words = changes.flatMap(({ cmdline }) => cmdline ?? []);
  return {
    ...whole,
    parts: changes.flatMap(({ parts }) => parts ?? []),
    ...(words.length === 0 ? {} : { cmdline: words.join(' ') }),
  };
}

/** Slots from here on are for `portParts`. */
const FIRST_FREE = 0x12;
export const MOST_PORTS = 8;

/** Ports for what a person brings: their names. */
export function portNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `free${i}`);
}

/** With room for windows of device memory. */
export function portParts(count: number): Part[] {
  return portNames(count).map((id, i) => ({
    device: {
      ...{ driver: 'pcie-root-port', addr: `${(FIRST_FREE + i).toString(16)}.0`, id },
      ...{ chassis: String(3 + i), slot: String(3 + i), 'pref32-reserve': '32M' },
    },
  }));
}

export interface MachineOptions {
  readonly rootDisk: string;
  /** Merged over a slot's properties: `{ '03.0': { packed: 'on' } }`. */
  readonly tweaks?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export function labParts(options: MachineOptions): Part[] {
  const virtio = (
    slot: string,
    driver: string,
    more: Record<string, string>,
    backend: readonly string[] = [],
  ): Part => ({
    device: { driver, addr: slot, ...MODERN, ...more, ...options.tweaks?.[slot] },
    backend,
  });
  const plain = (
    slot: string,
    driver: string,
    more: Record<string, string>,
    backend: readonly string[] = [],
  ): Part => ({
    device: { driver, addr: slot, ...more, ...options.tweaks?.[slot] },
    backend,
  });
  return [
    virtio('02.0', 'virtio-blk-pci', { drive: 'root', serial: 'root' }, [
      '-drive',
      `if=none,id=root,file=${options.rootDisk.replaceAll(',', ',,')},format=raw,read-only=on,file.locking=off`,
    ]),
    virtio('03.0', 'virtio-net-pci', { netdev: 'net0', mac: '52:54:00:00:00:01', romfile: '' }, network('net0')),
    virtio('04.0', 'virtio-serial-pci', { id: 'vserial' }),
    {
      device: { driver: 'virtconsole', bus: 'vserial.0', chardev: 'hvc0' },
      backend: ['-chardev', 'null,id=hvc0'],
    },
    virtio('05.0', 'virtio-rng-pci', { rng: 'rng0' }, ['-object', 'rng-random,id=rng0,filename=/dev/urandom']),
    // Linux's balloon driver does without the DMA API; QEMU refuses it when it must not.
    virtio('06.0', 'virtio-balloon-pci', { iommu_platform: 'off' }),
    virtio('07.0', 'virtio-9p-pci', { fsdev: 'share', mount_tag: 'share' }, [
      '-fsdev',
      'local,id=share,path={folder}/share,security_model=none,readonly=on',
    ]),
    virtio('08.0', 'virtio-gpu-pci', {}),
    virtio('09.0', 'virtio-keyboard-pci', {}),
    plain('0a.0', 'nvme', { drive: 'nvme0', serial: 'lab-nvme0' }, nullDrive('nvme0')),
    plain('10.0', 'pcie-root-port', { id: 'port0', chassis: '1', slot: '1' }),
    plain('11.0', 'pcie-root-port', { id: 'port1', chassis: '2', slot: '2' }),
  ];
}

/** A card that reaches nobody: user-mode network, restricted. */
function network(id: string): string[] {
  return ['-netdev', `user,id=${id},restrict=on`];
}

/** A drive that reads as zeros and keeps nothing. */
export function nullDrive(id: string): string[] {
  return ['-drive', `if=none,id=${id},file.driver=null-co,file.size=64M,file.read-zeroes=on,format=raw`];
}

/** Back-ends of what is plugged in while the guest runs. */
export const HOTPLUG_BACKENDS: readonly string[] = [...network('net1'), ...nullDrive('nvme1')];

export interface Hotplug {
  readonly id: string;
  readonly what: string;
  readonly device: Readonly<Record<string, string | boolean>>;
}

/** `device_add` arguments of what the host plugs in while the guest runs. */
export const HOTPLUGS: readonly Hotplug[] = [
  {
    id: 'hot-net',
    what: 'second network card',
    device: {
      driver: 'virtio-net-pci',
      bus: 'port0',
      netdev: 'net1',
      mac: '52:54:00:00:00:02',
      romfile: '',
      'disable-legacy': 'on',
      iommu_platform: true,
    },
  },
  {
    id: 'hot-nvme',
    what: 'second NVMe drive',
    device: { driver: 'nvme', bus: 'port1', drive: 'nvme1', serial: 'lab-nvme1' },
  },
];

/** MiB; Node in the guest needs about half of it. */
export const MEMORY = 512;

/** `swiotlb=force`: every transfer goes through the bounce buffer, as in a confidential VM. */
export const CMDLINE = 'console=ttyS0 quiet panic=-1 swiotlb=force';

const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/^platform:00:0[0-2]$/, 'serial line'],
  [/^platform:MSFT0101:00$/, 'TPM'],
  [/^platform:i8042$/, 'keyboard controller'],
  [/^platform:QEMU0002:00$/, 'fw_cfg'],
];

/** A person's word for a device of this machine, by Airlock's id. */
export function deviceName(id: string): string {
  const free = /^pci:0000:00:(1[2-9])\.0$/.exec(id);
  if (free !== null) return 'hot-plug port';
  const slot = /^pci:0000:00:([0-9a-f]{2}\.[0-7])$/.exec(id)?.[1];
  if (slot !== undefined) return SLOTS[slot] ?? 'PCI function';
  const bus = /^pci:0000:0([12]):00\.0$/.exec(id)?.[1];
  if (bus !== undefined) return HOTPLUGS[Number(bus) - 1]?.what ?? 'PCI function';
  return OTHERS.find(([pattern]) => pattern.test(id))?.[1] ?? id;
}
