/** A device that is to be asked over SPDM, behind a socket or a DOE mailbox: how it is reached, and what is known of it. */
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { findDevice } from '@airlock/linux/find-device.ts';
import { readFunctionFacts } from '@airlock/linux/function-layout.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import type { AskInterface } from '@airlock/spdm/attest/gather-interface.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import type { Link } from '@airlock/spdm/requester/procedure.ts';
import type { Binding } from '@airlock/spdm/secured/binding.ts';
import { openSocketLink } from '@airlock/spdm/tcp/node-link.ts';
import { SOCKET_FORMS, type SocketForm } from '@airlock/spdm/tcp/socket-form.ts';
import { openFunctionLink } from './function-link.ts';
import { type Context, UsageError, type Values } from './verb.ts';

export interface Reached {
  readonly name: string;
  readonly binding: Binding;
  readonly link: Link;
  readonly function: PciIdentity | null;
  /** The function's address, and what drives it; null for a socket. */
  readonly address: string | null;
  readonly driver: string | null;
  readonly readFacts: AskInterface['readFacts'];
  close(): Promise<void>;
}

/** `word` is tcp://HOST:PORT or names a device. Codes: those of `openSocketLink`, `openFunctionLink` and reading sysfs. Throws UsageError. */
export function reachDevice(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  return word.includes('://') ? reachSocket(context, word, values) : reachFunction(context, word, values);
}

async function reachSocket(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  const match = /^tcp:\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})\/?$/.exec(word);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535)
    throw new UsageError(`${printable(word)}: tcp://HOST:PORT is the form`);
  const form = values['transport'] ?? SOCKET_FORMS[0];
  const known = SOCKET_FORMS.find((one): one is SocketForm => one === form);
  if (known === undefined)
    throw new UsageError(`--transport ${printable(String(form))}: one of ${SOCKET_FORMS.join(', ')}`);
  const facts = typeof values['facts'] === 'string' ? resolve(context.cwd, values['facts']) : null;
  if (facts !== null && !existsSync(join(facts, 'config')))
    throw new UsageError(`--facts ${printable(facts)}: no folder with a config file`);
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  const link = await openSocketLink({ host, port, form: known });
  if (!link.ok) return link;
  return ok({
    name: word,
    binding: link.value.binding,
    link: link.value,
    function: null,
    address: null,
    driver: null,
    readFacts: facts === null ? null : () => readFunctionFacts(nodeFiles({ root: facts, writes: 'nothing' }), '', null),
    close: () => link.value.close(),
  });
}

async function reachFunction(context: Context, word: string, values: Values): Promise<Result<Reached>> {
  if (values['transport'] !== undefined) throw new UsageError('--transport is for sockets');
  if (values['function'] !== undefined)
    throw new UsageError('--function is for sockets: of a PCI function it is known');
  if (values['facts'] !== undefined) throw new UsageError('--facts is for sockets: of a PCI function they are read');
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new UsageError(`no such folder: ${printable(root)}`);
  // Nothing is written through these: the mailbox's registers have a hand of their own.
  const files = nodeFiles({ root, writes: 'nothing' });
  const inventory = await readInventory(files);
  if (!inventory.ok) return inventory;
  const found = findDevice(inventory.value.devices, word);
  if (!found.ok) throw new UsageError(formatProblem(found.error));
  const opened = await openFunctionLink(root, found.value);
  const holder = found.value.tsm?.locked;
  if (!opened.ok && typeof holder === 'string')
    return fail(opened.error.code, opened.error.message, {
      hint: `the kernel's TSM holds it: --tsm ${holder} asks there`,
    });
  if (!opened.ok) return opened;
  const { link, close, readFacts } = opened.value;
  return ok({
    name: found.value.id,
    binding: doeBinding,
    link,
    function: opened.value.function,
    address: found.value.location,
    driver: found.value.nodes.find(({ driver }) => driver !== null)?.driver ?? null,
    readFacts,
    close: async () => close(),
  });
}
