/** A real file as a disk, and chains over memory that the kernel can reach. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PENDING } from '@airlock/device/block/disk.ts';
import { FileDisk } from '@airlock/device/block/file-disk.ts';
import { FileMap } from '@airlock/device/block/file-map.ts';
import { type DiskChoice, openDisk } from '@airlock/device/block/open-disk.ts';
import { createSharedMemory, mapSharedMemory } from '@airlock/transport/shared-memory.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { createUring } from '@airlock/transport/uring.ts';
import type { Region } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { must } from './in-memory-driver.ts';

export const systemCalls: SystemCalls = must(await loadSystemCalls());

export interface TestFolder {
  readonly path: string;
  /** An image of so many bytes, all zero. */
  image(name: string, size: number): string;
  remove(): void;
}

export function testFolder(): TestFolder {
  const path = mkdtempSync(join(tmpdir(), 'airlock-disk-'));
  return {
    path,
    image(name, size) {
      const file = join(path, name);
      writeFileSync(file, '');
      truncateSync(file, size);
      return file;
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

export interface OpenedDisk {
  readonly disk: FileDisk;
  readonly calls: SystemCalls;
  /** Waits for one operation, whatever way it ends. */
  end(begun: number): number;
}

export function openTestDisk(
  file: string,
  choice: Partial<DiskChoice> & { readonly ring?: boolean; readonly map?: boolean } = {},
  calls: SystemCalls = systemCalls,
): OpenedDisk {
  const { ring = true, map = false, ...rest } = choice;
  const facts = must(
    openDisk(calls, { file, readOnly: false, direct: false, blockSize: null, discard: true, ...rest }),
  );
  const mapping = map ? must(FileMap.create(calls, facts.fd, facts.size, () => performance.now())) : null;
  const disk = new FileDisk(calls, facts, ring ? must(createUring(calls, 64)) : null, mapping);
  let ended: number | null = null;
  disk.bind(64, (_token, result) => {
    ended = result;
  });
  return {
    disk,
    calls,
    end(begun) {
      if (begun !== PENDING) return begun;
      disk.submit();
      for (let tries = 0; ended === null && tries < 100; tries++) if (disk.reap() === 0) disk.wait(1000);
      const result = ended;
      ended = null;
      if (result === null) throw new Error('the disk does not end an operation');
      return result;
    },
  };
}

export interface RealMemory {
  readonly region: Region;
  /** A chain of these buffers: offset and length of each, device-readable ones first. */
  chain(readable: readonly (readonly [number, number])[], writable: readonly (readonly [number, number])[]): Chain;
  release(): void;
}

export function realMemory(length: number): RealMemory {
  const made = must(createSharedMemory(systemCalls, 'disk-test', length));
  const mapping = must(mapSharedMemory(systemCalls, made.fd, { name: 'disk-test', offset: 0, length, writable: true }));
  systemCalls.close(made.fd);
  const space = new AddressSpace();
  must(space.map({ start: 0, size: length, region: mapping.region, offset: 0, access: 3 }));
  return {
    region: mapping.region,
    chain(readable, writable) {
      const chain = new Chain(4096);
      chain.begin(0);
      for (const [offset, bytes] of readable)
        if (chain.append(space, offset, bytes, false) !== 0) throw new Error('chain');
      for (const [offset, bytes] of writable)
        if (chain.append(space, offset, bytes, true) !== 0) throw new Error('chain');
      return chain;
    },
    release: () => mapping.release(),
  };
}
