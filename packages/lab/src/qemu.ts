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
  /**
   * A software TPM whose state (seeds, so its keys) lies in this folder and stays there, and UEFI firmware that measures
   * into it what boots: without that firmware nobody measures the kernel, its command line and its initramfs.
   */
  readonly tpmState?: string;
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
  if (machine.tpmState !== undefined) words.push(...measuredBoot(cache, folder));
  for (const part of machine.parts) {
    for (const word of part.backend ?? []) words.push(word.replaceAll('{folder}', folder));
    words.push('-device', deviceWord(part.device));
  }
  words.push(...(machine.backends ?? []));
  return words;
}

/** Files of a measured boot within the guest's private folder. */
export const TPM_FOLDER = 'tpm';
export const FIRMWARE_VARIABLES = 'variables.fd';

/** The image that a guest's firmware variables begin as: empty, so that every boot measures the same. */
export function firmwareVariables(cache: Cache): string {
  return join(cache.tools, 'usr/share/OVMF/OVMF_VARS_4M.fd');
}

function measuredBoot(cache: Cache, folder: string): string[] {
  const firmware = join(cache.tools, 'usr/share/OVMF/OVMF_CODE_4M.fd');
  const flash = (unit: number, file: string, more: string) => [
    '-drive',
    `if=pflash,format=raw,unit=${unit},file=${file.replaceAll(',', ',,')}${more}`,
  ];
  return [
    ...flash(0, firmware, ',readonly=on,file.locking=off'),
    ...flash(1, join(folder, FIRMWARE_VARIABLES), ''),
    ...['-chardev', `socket,id=tpm,path=${join(folder, TPM_FOLDER, 'tpm.sock')}`],
    ...['-tpmdev', 'emulator,id=tpm0,chardev=tpm', '-device', 'tpm-tis,tpmdev=tpm0'],
  ];
}

/** The software TPM for a guest; it listens once `tpm.pid` is there, and ends with QEMU. */
export function tpmWords(cache: Cache, state: string, folder: string): string[] {
  const at = join(folder, TPM_FOLDER);
  return [
    ...cachedProgram(cache, 'swtpm', 'swtpm'),
    ...['socket', '--tpm2', '--terminate', '--flags', 'startup-clear'],
    ...['--ctrl', `type=unixio,path=${join(at, 'tpm.sock')}`, '--tpmstate', `dir=${state}`],
    ...['--pid', `file=${join(at, 'tpm.pid')}`],
  ];
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
