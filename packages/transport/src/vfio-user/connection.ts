/**
 * One client of a vfio-user server: its messages, its memory, its interrupts. What breaks the protocol is answered with an
 * error and ends the connection; what merely cannot be done is answered with an error. Whatever comes, this process and
 * the function's other users go on.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { type Descriptors, FramedSocket } from '../framed-socket.ts';
import { HANGUP, READABLE, type Reactor, type Watch, WRITABLE } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import { setNonBlocking } from '../unix-socket.ts';
import { isSignal } from '../vhost-user/descriptor-kind.ts';
import { DmaMemory } from './dma-memory.ts';
import { InterruptSet } from './interrupt-set.ts';
import {
  ACTION_MASK,
  ACTION_TRIGGER,
  ACTION_UNMASK,
  capabilitiesText,
  commandName,
  DATA_BOOL,
  DATA_EVENTFD,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_RESET,
  DEVICE_SET_IRQS,
  DMA_MAP,
  DMA_READ,
  DMA_UNMAP,
  DMA_WRITE,
  Draft,
  ERROR,
  HEADER_SIZE,
  type Header,
  IRQ_INTX,
  IRQ_MSI,
  IRQ_MSIX,
  type Message,
  parseDmaMap,
  parseDmaUnmap,
  parseRegionAccess,
  parseSetIrqs,
  parseVersion,
  putUint64,
  REGION_READ,
  REGION_WRITE,
  TRANSFER_LIMIT,
  TYPE_REPLY,
  takeUint64,
  VERSION,
  VFIO_USER_FRAMING,
} from './message.ts';
import type { FunctionLink, ServedFunction } from './served-function.ts';

const EINVAL = 22;
const ENOTSUP = 95;
const ENOENT = 2;

/** VFIO's region of the configuration space. */
const CONFIG_REGION = 7;
/** VFIO's interrupts: INTx, MSI, MSI-X, error, request. */
const IRQ_KINDS = 5;
/** A read of configuration space of at least this much is a client that takes a snapshot, not a guest's access. */
const SNAPSHOT = 256;
/** Transfers by message that may be under way at once. */
const TRANSFERS_LIMIT = 4096;

export interface ConnectionOptions {
  /**
   * The function shows no capabilities to the client's snapshot and owns capabilities, MSI-X table and messages itself;
   * otherwise the client (QEMU) emulates MSI-X.
   */
  readonly stealth: boolean;
  /** Called once when it is over; a client that went away between messages is no problem. */
  readonly ended: (problem: Problem | null) => void;
  /** What does not end the connection but should be known. */
  readonly report: (problem: Problem) => void;
}

interface Transfer {
  readonly command: number;
  readonly count: number;
  done(result: Result<Uint8Array>): void;
}

export class Connection implements FunctionLink {
  readonly memory: AddressSpace;
  readonly ownsInterrupts: boolean;
  private readonly calls: SystemCalls;
  private readonly served: ServedFunction;
  private readonly options: ConnectionOptions;
  private readonly socket: FramedSocket<Header>;
  private readonly dma: DmaMemory;
  private readonly interrupts: readonly InterruptSet[];
  private readonly watch: Watch;
  private readonly transfers = new Map<number, Transfer>();
  /** A function may begin a transfer while the answer to its access is in the making. */
  private readonly answers = new Draft();
  private readonly requests = new Draft();
  private lastId = 0;
  private greeted = false;
  private over = false;
  private sawSnapshot = false;
  private warned = false;

  /** `fd` is the connection's from now on. The function is attached once the client has said its version. */
  constructor(calls: SystemCalls, reactor: Reactor, fd: number, served: ServedFunction, options: ConnectionOptions) {
    this.calls = calls;
    this.served = served;
    this.options = options;
    this.ownsInterrupts = !options.stealth;
    this.socket = new FramedSocket(calls, fd, VFIO_USER_FRAMING);
    this.dma = new DmaMemory(calls);
    this.memory = this.dma.space;
    const { intx, msi, msix } = served.interrupts;
    // A line needs the client in any case: there is no message for it.
    const shown = options.stealth ? [intx, 0, 0] : [intx, msi, msix];
    this.interrupts = shown.map((count) => new InterruptSet(calls, count));
    this.watch = reactor.watch(fd, READABLE, (events) => this.ready(events));
  }

  /** Ends it, as if the client had gone. */
  close(problem: Problem | null = null): void {
    if (this.over) return;
    this.over = true;
    this.watch.close();
    if (this.greeted) this.served.detach();
    const waiting = [...this.transfers.values()];
    this.transfers.clear();
    for (const transfer of waiting) transfer.done(fail('vfio-user-gone', 'the client is gone'));
    for (const set of this.interrupts) set.clear();
    this.socket.close();
    this.dma.close();
    this.options.ended(problem);
  }

  trigger(kind: 'intx' | 'msi' | 'msix', vector: number): void {
    if (this.over) return;
    this.interrupts[kind === 'intx' ? IRQ_INTX : kind === 'msi' ? IRQ_MSI : IRQ_MSIX]?.trigger(vector);
  }

  sendMessage(address: number, data: number): void {
    const bytes = Uint8Array.of(data & 0xff, (data >>> 8) & 0xff, (data >>> 16) & 0xff, data >>> 24);
    this.writeDma(address, bytes, () => {});
  }

  readDma(address: number, length: number, done: (bytes: Result<Uint8Array>) => void): void {
    if (!(length > 0 && length <= TRANSFER_LIMIT)) {
      done(fail('vfio-user-dma-refused', `${length} bytes`));
      return;
    }
    const message = this.startTransfer(DMA_READ, address, length, 0, done);
    if (message !== null) this.send(message);
  }

  writeDma(address: number, bytes: Uint8Array, done: (result: Result<void>) => void): void {
    if (!(bytes.length > 0 && bytes.length <= TRANSFER_LIMIT)) {
      done(fail('vfio-user-dma-refused', `${bytes.length} bytes`));
      return;
    }
    const message = this.startTransfer(DMA_WRITE, address, bytes.length, bytes.length, (result) =>
      done(result.ok ? ok(undefined) : result),
    );
    if (message === null) return;
    message.bytes.set(bytes, HEADER_SIZE + 16);
    this.send(message);
  }

  private startTransfer(
    command: number,
    address: number,
    count: number,
    data: number,
    done: (result: Result<Uint8Array>) => void,
  ): Message | null {
    if (this.over || this.transfers.size >= TRANSFERS_LIMIT) {
      done(fail(this.over ? 'vfio-user-gone' : 'vfio-user-dma-refused', `${this.transfers.size} transfers wait`));
      return null;
    }
    do this.lastId = (this.lastId + 1) & 0xffff;
    while (this.transfers.has(this.lastId));
    this.transfers.set(this.lastId, { command, count, done });
    const message = this.requests.start(this.lastId, command, 0, 16 + data);
    putUint64(message.view, HEADER_SIZE, address);
    putUint64(message.view, HEADER_SIZE + 8, count);
    return message;
  }

  private ready(events: number): void {
    if ((events & WRITABLE) !== 0) {
      const problem = this.socket.flush();
      if (problem !== null) {
        this.close(problem);
        return;
      }
      if (!this.socket.pending) this.watch.setEvents(READABLE);
    }
    if ((events & (READABLE | HANGUP)) === 0) return;
    while (!this.over) {
      const frame = this.socket.next();
      if (!frame.ok) this.close(frame.error.code === 'vfio-user-gone' ? null : frame.error);
      if (!frame.ok || frame.value === null) return;
      const { header, payload, descriptors } = frame.value;
      const problem = this.handle(header, payload, descriptors);
      descriptors.close();
      if (problem !== null) this.close(problem);
    }
  }

  /** Null, or why the connection ends. */
  private handle(header: Header, body: Uint8Array, descriptors: Descriptors): Problem | null {
    if (header.reply) return this.takeReply(header, body);
    const { command } = header;
    if (this.greeted === (command === VERSION)) {
      this.refuse(header, EINVAL);
      return problem('vfio-user-out-of-order', `${commandName(command)} ${this.greeted ? 'again' : 'before VERSION'}`);
    }
    const most = command === DMA_MAP ? 1 : command === DEVICE_SET_IRQS ? Number.POSITIVE_INFINITY : 0;
    if (descriptors.count > most) {
      this.refuse(header, EINVAL);
      return problem('vfio-user-descriptors', `${descriptors.count} with ${commandName(command)}`);
    }
    const outcome = this.carryOut(header, body, descriptors);
    if (outcome.ok) {
      if (!header.noReply) this.send(outcome.value);
      return null;
    }
    this.refuse(header, REFUSALS[outcome.error.code] ?? EINVAL);
    // A request that is well-formed and cannot be granted is no reason to part.
    if (outcome.error.code in REFUSALS) {
      this.options.report(outcome.error);
      return null;
    }
    return outcome.error;
  }

  private carryOut(header: Header, body: Uint8Array, descriptors: Descriptors): Result<Message> {
    switch (header.command) {
      case VERSION:
        return this.greet(header, body);
      case DMA_MAP:
        return this.mapDma(header, body, descriptors);
      case DMA_UNMAP:
        return this.unmapDma(header, body);
      case DEVICE_GET_INFO:
        return this.describe(header, body);
      case DEVICE_GET_REGION_INFO:
        return this.describeRegion(header, body);
      case DEVICE_GET_IRQ_INFO:
        return this.describeIrq(header, body);
      case DEVICE_SET_IRQS:
        return this.setIrqs(header, body, descriptors);
      case REGION_READ:
        return this.readRegion(header, body);
      case REGION_WRITE:
        return this.writeRegion(header, body);
      case DEVICE_RESET:
        if (body.length !== 0) return fail('vfio-user-body-invalid', `DEVICE_RESET: ${body.length} bytes`);
        this.served.reset();
        return ok(this.answer(header, 0));
      default:
        return fail('vfio-user-not-offered', commandName(header.command));
    }
  }

  private greet(header: Header, body: Uint8Array): Result<Message> {
    const version = parseVersion(body);
    if (!version.ok) return version;
    const { major, minor } = version.value;
    if (major !== 0) return fail('vfio-user-version-invalid', `version ${major}.${minor}; this is 0.0`);
    this.greeted = true;
    this.served.attach(this);
    const text = capabilitiesText(body.length, 16);
    const reply = this.answer(header, 4 + text.length);
    for (let i = 0; i < text.length; i++) reply.bytes[HEADER_SIZE + 4 + i] = text.charCodeAt(i);
    return ok(reply);
  }

  private mapDma(header: Header, body: Uint8Array, descriptors: Descriptors): Result<Message> {
    const range = parseDmaMap(body);
    if (!range.ok) return range;
    const fd = descriptors.take(0);
    const mapped = this.dma.map(range.value, fd);
    if (fd >= 0) this.calls.close(fd);
    if (!mapped.ok) return mapped;
    this.served.memoryChanged();
    return ok(this.answer(header, 0));
  }

  private unmapDma(header: Header, body: Uint8Array): Result<Message> {
    const range = parseDmaUnmap(body);
    if (!range.ok) return range;
    // After the reply the client may give the memory to somebody else.
    this.served.quiesce();
    const unmapped =
      range.value === null ? ok(this.dma.unmapAll()) : this.dma.unmap(range.value.address, range.value.size);
    this.served.memoryChanged();
    if (!unmapped.ok) return unmapped;
    const reply = this.answer(header, body.length);
    reply.bytes.set(body, HEADER_SIZE);
    return ok(reply);
  }

  private describe(header: Header, body: Uint8Array): Result<Message> {
    if (body.length !== 16) return fail('vfio-user-body-invalid', `DEVICE_GET_INFO: ${body.length} bytes`);
    const reply = this.answer(header, 16);
    reply.view.setUint32(HEADER_SIZE, 16, true);
    // It can be reset, and it is a PCI function.
    reply.view.setUint32(HEADER_SIZE + 4, 3, true);
    reply.view.setUint32(HEADER_SIZE + 8, this.served.regionSizes.length, true);
    reply.view.setUint32(HEADER_SIZE + 12, IRQ_KINDS, true);
    return ok(reply);
  }

  private describeRegion(header: Header, body: Uint8Array): Result<Message> {
    if (body.length !== 32) return fail('vfio-user-body-invalid', `DEVICE_GET_REGION_INFO: ${body.length} bytes`);
    const index = new DataView(body.buffer, body.byteOffset).getUint32(8, true);
    const size = this.served.regionSizes[index];
    if (size === undefined) return fail('vfio-user-no-such-region', `region ${index}`);
    const reply = this.answer(header, 32);
    reply.view.setUint32(HEADER_SIZE, 32, true);
    reply.view.setUint32(HEADER_SIZE + 4, size === 0 ? 0 : 3, true);
    reply.view.setUint32(HEADER_SIZE + 8, index, true);
    putUint64(reply.view, HEADER_SIZE + 16, size);
    return ok(reply);
  }

  private describeIrq(header: Header, body: Uint8Array): Result<Message> {
    if (body.length !== 16) return fail('vfio-user-body-invalid', `DEVICE_GET_IRQ_INFO: ${body.length} bytes`);
    const index = new DataView(body.buffer, body.byteOffset).getUint32(8, true);
    if (index >= IRQ_KINDS) return fail('vfio-user-no-such-region', `interrupt ${index}`);
    const count = this.interrupts[index]?.count ?? 0;
    const reply = this.answer(header, 16);
    reply.view.setUint32(HEADER_SIZE, 16, true);
    // By eventfd; INTx can be masked and masks itself.
    reply.view.setUint32(HEADER_SIZE + 4, count === 0 ? 0 : index === IRQ_INTX ? 7 : 1, true);
    reply.view.setUint32(HEADER_SIZE + 8, index, true);
    reply.view.setUint32(HEADER_SIZE + 12, count, true);
    return ok(reply);
  }

  private setIrqs(header: Header, body: Uint8Array, descriptors: Descriptors): Result<Message> {
    const set = parseSetIrqs(body);
    if (!set.ok) return set;
    const { data, action, index, start, count, flags } = set.value;
    const vectors = this.interrupts[index];
    const reply = ok(this.answer(header, 0));
    if (vectors === undefined) {
      return index < IRQ_KINDS ? reply : fail('vfio-user-no-such-region', `interrupt ${index}`);
    }
    if (data !== DATA_EVENTFD && descriptors.count > 0) {
      return fail('vfio-user-descriptors', `${descriptors.count} with DEVICE_SET_IRQS that wants none`);
    }
    if (count === 0) {
      if (action === ACTION_TRIGGER) vectors.clear();
      return reply;
    }
    if (start >= vectors.count || count > vectors.count - start) {
      return fail('vfio-user-no-such-region', `vectors ${start} to ${start + count - 1} of ${vectors.count}`);
    }
    if (data === DATA_EVENTFD) {
      // No descriptors take the vectors' away; otherwise there is one for each.
      if (descriptors.count !== 0 && descriptors.count !== count) {
        return fail('vfio-user-descriptors', `${descriptors.count} for ${count} vectors`);
      }
      if (action !== ACTION_TRIGGER) return reply;
      const fds = Array.from({ length: count }, (_, i) => descriptors.take(i));
      if (!fds.every((fd) => fd < 0 || (isSignal(fd) && setNonBlocking(this.calls, fd).ok))) {
        for (const fd of fds) if (fd >= 0) this.calls.close(fd);
        return fail('vfio-user-descriptors', 'a descriptor that is no eventfd');
      }
      for (const [i, fd] of fds.entries()) vectors.assign(start + i, fd);
    } else if (action === ACTION_TRIGGER) {
      for (let i = 0; i < count; i++) if (data !== DATA_BOOL || flags[i] !== 0) vectors.trigger(start + i);
    } else if (index === IRQ_INTX && (action === ACTION_UNMASK || action === ACTION_MASK)) {
      // A line that is still asserted interrupts again once it is unmasked.
      if (action === ACTION_UNMASK && this.served.lineAsserted) vectors.trigger(0);
    }
    return reply;
  }

  private readRegion(header: Header, body: Uint8Array): Result<Message> {
    const access = parseRegionAccess(REGION_READ, body);
    if (!access.ok) return access;
    const { region, offset, count } = access.value;
    if (!this.within(region, offset, count)) return fail('vfio-user-no-such-region', outside(access.value));
    const reply = this.answer(header, 16 + count);
    reply.bytes.set(body, HEADER_SIZE);
    const data = reply.bytes.subarray(HEADER_SIZE + 16);
    this.served.readRegion(region, offset, data);
    if (region === CONFIG_REGION && this.options.stealth) this.hideCapabilities(offset, data);
    return ok(reply);
  }

  /**
   * QEMU takes one snapshot of configuration space when it makes the device, and emulates what it finds there. It is
   * shown a function without capabilities; the guest's own reads are short and see all.
   */
  private hideCapabilities(offset: number, data: Uint8Array): void {
    if (data.length < SNAPSHOT) {
      const looksAt = offset + data.length > 0x34 && (offset >= 0x40 || offset <= 0x34);
      if (this.sawSnapshot || this.warned || !looksAt) return;
      this.warned = true;
      this.options.report(
        problem(
          'vfio-user-stealth-unsure',
          `the client reads ${data.length} bytes at ${offset} of configuration space before it took all of it at once: it may emulate capabilities that the function owns`,
        ),
      );
      return;
    }
    this.sawSnapshot = true;
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      if (at === 0x06) data[i] = (data[i] ?? 0) & ~0x10;
      else if (at === 0x34 || at >= 0x40) data[i] = 0;
    }
  }

  private writeRegion(header: Header, body: Uint8Array): Result<Message> {
    const access = parseRegionAccess(REGION_WRITE, body);
    if (!access.ok) return access;
    const { region, offset, count, data } = access.value;
    if (!this.within(region, offset, count)) return fail('vfio-user-no-such-region', outside(access.value));
    this.served.writeRegion(region, offset, data);
    const reply = this.answer(header, 16);
    reply.bytes.set(body.subarray(0, 16), HEADER_SIZE);
    return ok(reply);
  }

  private within(region: number, offset: number, count: number): boolean {
    const size = this.served.regionSizes[region] ?? 0;
    return offset < size && count <= size - offset;
  }

  private takeReply(header: Header, body: Uint8Array): Problem | null {
    const transfer = this.transfers.get(header.id);
    if (transfer === undefined || transfer.command !== header.command) {
      return problem('vfio-user-out-of-order', `a reply to ${commandName(header.command)} that nobody asked for`);
    }
    this.transfers.delete(header.id);
    if (header.error) {
      transfer.done(fail('vfio-user-dma-refused', `${commandName(header.command)}: errno ${header.errno}`));
      return null;
    }
    const wanted = transfer.command === DMA_READ ? transfer.count : 0;
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    if (body.length !== 16 + wanted || takeUint64(view, 8) !== transfer.count) {
      transfer.done(fail('vfio-user-dma-refused', 'a reply of another size'));
      return problem('vfio-user-body-invalid', `the reply to ${commandName(header.command)}: ${body.length} bytes`);
    }
    transfer.done(ok(body.slice(16)));
    return null;
  }

  private refuse(header: Header, errno: number): void {
    if (header.noReply || this.over) return;
    this.send(this.answers.start(header.id, header.command, TYPE_REPLY | ERROR, 0, errno));
  }

  /** A reply whose header is the request's. */
  private answer(header: Header, body: number): Message {
    return this.answers.start(header.id, header.command, TYPE_REPLY, body);
  }

  private send(message: Message): void {
    if (this.over) return;
    const sent = this.socket.send(message.bytes);
    if (!sent.ok) this.close(sent.error);
    else if (this.socket.pending) this.watch.setEvents(READABLE | WRITABLE);
  }
}

/** Codes of what is well-formed and refused, with the errno of the answer. */
const REFUSALS: Readonly<Record<string, number>> = {
  'vfio-user-dma-refused': EINVAL,
  'vfio-user-no-such-region': ENOENT,
  'vfio-user-not-offered': ENOTSUP,
  'memory-not-sealed': EINVAL,
  'memory-size-invalid': EINVAL,
  'system-call-failed': EINVAL,
};

function problem(code: string, message: string): Problem {
  return { code, message };
}

function outside({ region, offset, count }: { region: number; offset: number; count: number }): string {
  return `${count} bytes at ${offset} of region ${region}`;
}
