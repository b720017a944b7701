/** What a probe looks at, and what it found. */
import type { Problem, Result } from '@airlock/core/result.ts';

/**
 * `must`: a rule of a standard; a failure is a finding. `should`: advice, or something that a careful back-end does; a
 * failure is only noted.
 */
export type Weight = 'must' | 'should';
export type Outcome = 'pass' | 'fail' | 'note' | 'skipped';

export interface ProbeCheck {
  readonly id: string;
  /** The rule's place in a standard. */
  readonly clause: string;
  readonly expected: string;
}

/** Every check, in the order in which they are made. */
export const PROBE_CHECKS = {
  'version-1': must('VIRTIO 1.3 §6.1', 'VERSION_1 is offered'),
  'protocol-features': should('vhost-user, Communication', 'protocol features are offered (bit 30)'),
  'reply-ack': should('vhost-user, REPLY_ACK', 'what it is told is acknowledged (REPLY_ACK)'),
  'config-offered': should('vhost-user, GET_CONFIG', 'the configuration can be read (CONFIG)'),
  'memory-slots': must('vhost-user, GET_MAX_MEM_SLOTS', 'room for at least 8 regions of memory'),
  'feature-dependencies': must('VIRTIO 1.3 §2.2.1', 'no feature is offered without those that it requires'),
  'features-known': should('VIRTIO 1.4 §5, §6', 'every offered bit is one that the standard defines'),
  'config-valid': must(
    'VIRTIO 1.4 §5',
    'the configuration has every field that the features promise, with valid values',
  ),
  'queue-count': must('vhost-user, GET_QUEUE_NUM', 'as many queues as the device type and its configuration say'),
  'config-stable': must('VIRTIO 1.3 §2.5.1', 'the same configuration when it is read again'),
  'features-accepted': must('VIRTIO 1.3 §3.1.1', 'a subset of what is offered is accepted'),
  'queues-start': must('vhost-user, Ring states', 'queues start'),
  'request-answered': must('VIRTIO 1.4 §5', 'a request that changes nothing is answered'),
  'used-length': must('VIRTIO 1.3 §2.7.8.2', 'a used length of no more than was writable'),
  'queue-stops': must(
    'vhost-user, GET_VRING_BASE',
    'a queue that stops says where: after as many requests as were made',
  ),
  'queue-resumes': must('vhost-user, SET_VRING_BASE', 'it goes on from there, and answers again'),
  'inflight-area': must('vhost-user, GET_INFLIGHT_FD', 'a record of requests in flight that has room for all of them'),
  'serves-again': should('vhost-user, Communication', 'when one front-end has gone, the next is served'),
  'set-up-again': must('vhost-user, Communication', 'on a new connection everything can be set up again'),
  'features-stable': must('VIRTIO 1.3 §2.2', 'the same features on offer when asked again'),
  'feature-not-offered': should('VIRTIO 1.3 §2.2.2', 'a feature that is not offered is refused'),
  'unknown-message': should('vhost-user, REPLY_ACK', 'a message that does not exist is answered with no'),
  'queue-out-of-range': should('vhost-user, Multiple queue support', 'a queue that does not exist is refused'),
  'hostile-address': must('VIRTIO 1.3 §2.7.5', 'a descriptor that points nowhere does not end the back-end'),
  'hostile-loop': must('VIRTIO 1.3 §2.7.5.2', 'a chain without an end does not hang the back-end'),
  'hostile-head': must('VIRTIO 1.3 §2.7.6', 'a head beyond the ring does not end the back-end'),
  'hostile-index': must('VIRTIO 1.3 §2.7.6', 'an available index that jumps does not end or hang the back-end'),
  'hostile-message': must('vhost-user, Header', 'half a message, or one of a wrong size, does not end the back-end'),
} as const satisfies Record<string, Omit<ProbeCheck, 'id'> & { readonly weight: Weight }>;

export type CheckId = keyof typeof PROBE_CHECKS;

function must(clause: string, expected: string): Omit<ProbeCheck, 'id'> & { readonly weight: Weight } {
  return { clause, expected, weight: 'must' };
}

function should(clause: string, expected: string): Omit<ProbeCheck, 'id'> & { readonly weight: Weight } {
  return { clause, expected, weight: 'should' };
}

export interface ProbeFinding extends ProbeCheck {
  readonly outcome: Outcome;
  readonly found: string;
  /** Of the problem, where there was one. */
  readonly code?: string;
}

/** The findings of one probe, each check once. */
export class Findings {
  readonly all: ProbeFinding[] = [];

  private add(id: CheckId, outcome: Outcome, found: string, code?: string): void {
    const { clause, expected } = PROBE_CHECKS[id];
    if (this.all.some((one) => one.id === id)) return;
    this.all.push({ id, clause, expected, outcome, found, ...(code === undefined ? {} : { code }) });
  }

  /** Returns `good`. */
  check(id: CheckId, good: boolean, found: string): boolean {
    this.add(id, good ? 'pass' : PROBE_CHECKS[id].weight === 'must' ? 'fail' : 'note', found);
    return good;
  }

  fail(id: CheckId, problem: Problem): void {
    const outcome = PROBE_CHECKS[id].weight === 'must' ? 'fail' : 'note';
    this.add(id, outcome, problem.message, problem.code);
  }

  /** The value of a result; a problem becomes a failure of the check. */
  take<T>(id: CheckId, result: Result<T>, found: (value: T) => string): T | null {
    if (!result.ok) {
      this.fail(id, result.error);
      return null;
    }
    this.add(id, 'pass', found(result.value));
    return result.value;
  }

  skip(id: CheckId, why: string): void {
    this.add(id, 'skipped', why);
  }

  /** In the order of PROBE_CHECKS. */
  sorted(): ProbeFinding[] {
    const order = Object.keys(PROBE_CHECKS);
    return [...this.all].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
  }
}
