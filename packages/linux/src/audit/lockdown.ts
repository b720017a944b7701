/** Kernel lockdown: from securityfs, or where that is not mounted from the kernel's log. */
import { parseChosen } from '../attribute.ts';
import { type Evidence, evidence } from './evidence.ts';
import { fact, kernelLog, logIsWhole, type Observations, type Unknown } from './reading.ts';

export const LOCKDOWN = '/sys/kernel/security/lockdown';

export interface Lockdown {
  readonly state: 'known';
  readonly on: boolean;
  /** `none`, `integrity`, `confidentiality`; `not in this kernel`; `on` where only the log tells. */
  readonly mode: string;
  readonly seen: Evidence;
}

/** Every change of lockdown is logged ("Kernel is locked down from ..."), so a whole log without the line says none. */
export function lockdownOf(observations: Observations): Lockdown | Unknown {
  const file = fact(observations, LOCKDOWN);
  if (file.state === 'absent') {
    const mode = 'not in this kernel';
    return { state: 'known', on: false, mode, seen: evidence(LOCKDOWN, 'absent: built without it') };
  }
  if (file.state === 'read') {
    const mode = parseChosen(file.text);
    if (mode !== 'none' && mode !== 'integrity' && mode !== 'confidentiality') {
      return { state: 'unknown', path: LOCKDOWN, because: 'not what the kernel writes there' };
    }
    return { state: 'known', on: mode !== 'none', mode, seen: evidence(LOCKDOWN, file.text) };
  }
  const log = kernelLog(observations);
  if (log.state !== 'read') return file;
  const line = log.text.split('\n', 20_000).find((one) => /^(\[ *\d+\.\d+\] )?Kernel is locked down from /.test(one));
  if (line !== undefined) return { state: 'known', on: true, mode: 'on', seen: evidence(log.path, line) };
  if (!logIsWhole(log.text)) return file;
  return { state: 'known', on: false, mode: 'none', seen: evidence(log.path, 'no "Kernel is locked down"') };
}
