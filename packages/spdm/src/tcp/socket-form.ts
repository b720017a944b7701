/** The forms in which SPDM goes over a socket: DSP0287’s own, and what DMTF’s emulator carries in its frames. */
import { doeBinding } from '../doe/binding.ts';
import { mctpBinding } from '../mctp/binding.ts';
import type { Binding } from '../secured/binding.ts';
import { tcpBinding } from './binding.ts';
import { EMULATOR_TRANSPORT } from './emulator-frame.ts';

export const SOCKET_FORMS = ['tcp', 'emulator-doe', 'emulator-mctp', 'emulator-tcp'] as const;
export type SocketForm = (typeof SOCKET_FORMS)[number];

export interface SocketFormEntry {
  readonly binding: Binding;
  /** The emulator’s number; null for DSP0287, which has no frames around it. */
  readonly transport: number | null;
}

export const SOCKET_FORM: Readonly<Record<SocketForm, SocketFormEntry>> = {
  tcp: { binding: tcpBinding, transport: null },
  'emulator-doe': { binding: doeBinding, transport: EMULATOR_TRANSPORT.doe },
  'emulator-mctp': { binding: mctpBinding, transport: EMULATOR_TRANSPORT.mctp },
  'emulator-tcp': { binding: tcpBinding, transport: EMULATOR_TRANSPORT.tcp },
};
