/** QEMU's command line, from a declaration of the machine. Pure. */
import { join } from 'node:path';
import { type Cache, cachedProgram } from './cache.ts';

/** One `-device` with what it needs beside it; `{folder}` stands for the guest's private folder. */
export interface Part {
  readonly device: Readonly<Record<string, string>>;
  /** Words before it: back-ends. */
  readonly backend?: readonly string[];
}

export interface Machine {
  readonly accelerator: 'kvm' | 'tcg';
  readonly memory: number;
  readonly kernel: string;
  readonly initramfs: string;
  readonly cmdline: string;
  readonly parts: readonly Part[];
  /** Words for back-ends of what is plugged in later. */
  readonly backends?: readonly string[];
  /** The guest's memory is a sealed memfd that other processes can map: what vhost-user and vfio-user need. */
  readonly sharedMemory?: boolean;
  /** Virtual processors; 1 when absent. */
  readonly processors?: number;
}

/** The guest's serial lines, in order: the kernel's console, the command channel, a shell for a person. */
export const SERIAL_LINES = ['console', 'channel', 'shell'] as const;

export function qemuWords(cache: Cache, machine: Machine, folder: string): string[] {
  const share = join(cache.tools, 'usr/share');
  const at = (name: string) => join(folder, `${name}.sock`);
  const words = [
    ...cachedProgram(cache, 'qemu-system-x86_64'),
    ...['-L', join(share, 'qemu'), '-L', join(share, 'seabios')],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-S'],
    ...['-machine', machine.sharedMemory ? 'q35,memory-backend=ram' : 'q35'],
    ...['-accel', machine.accelerator, '-cpu', machine.accelerator === 'kvm' ? 'host' : 'max'],
    ...(machine.sharedMemory ? ['-object', `memory-backend-memfd,id=ram,size=${machine.memory}M,share=on`] : []),
    ...['-m', String(machine.memory), '-smp', String(machine.processors ?? 1)],
    ...['-kernel', machine.kernel, '-initrd', machine.initramfs, '-append', machine.cmdline],
    ...['-chardev', `socket,id=qmp,path=${at('qmp')},server=on,wait=off`],
    ...['-object', 'monitor-qmp,id=control,chardev=qmp'],
  ];
  SERIAL_LINES.forEach((name, index) => {
    words.push('-chardev', `socket,id=${name},path=${at(name)},server=on,wait=off`);
    words.push('-device', `isa-serial,chardev=${name},index=${index}`);
  });
  for (const part of machine.parts) {
    for (const word of part.backend ?? []) words.push(word.replaceAll('{folder}', folder));
    words.push('-device', deviceWord(part.device));
  }
  words.push(...(machine.backends ?? []));
  return words;
}

/** `virtio-net-pci,netdev=net0,mac=…`; a comma in a value is doubled, as QEMU reads it. */
function deviceWord(device: Readonly<Record<string, string>>): string {
  return Object.entries(device)
    .map(([key, value]) => (key === 'driver' ? value : `${key}=${value.replaceAll(',', ',,')}`))
    .join(',');
}

/** QEMU looks for its loadable parts beside its own program, which here is the loader. */
export function qemuEnvironment(cache: Cache): Record<string, string> {
  return { QEMU_MODULE_DIR: join(cache.tools, 'usr/lib/x86_64-linux-gnu/qemu') };
}
