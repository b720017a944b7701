/** A VMM that is nothing but memory and a list of what the function did. */
import { fail } from '@airlock/core/result.ts';
import type { FunctionLink } from '@airlock/transport/vfio-user/served-function.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';

export interface FakeLink extends FunctionLink {
  readonly messages: { address: number; data: number }[];
  readonly triggers: string[];
}

export function fakeLink(memory: AddressSpace = new AddressSpace()): FakeLink {
  const messages: { address: number; data: number }[] = [];
  const triggers: string[] = [];
  return {
    memory,
    ownsInterrupts: false,
    messages,
    triggers,
    trigger: (kind, vector) => void triggers.push(`${kind} ${vector}`),
    sendMessage: (address, data) => void messages.push({ address, data }),
    readDma: (_address, _length, done) => done(fail('vfio-user-dma-refused', 'none')),
    writeDma: (_address, _bytes, done) => done(fail('vfio-user-dma-refused', 'none')),
  };
}
