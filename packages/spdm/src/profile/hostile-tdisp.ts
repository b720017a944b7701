/** What a hostile device does with its TDISP interfaces: the honest DSM behind it, and its reports and answers changed. */
import { ok, type Result } from '@airlock/core/result.ts';
import { decodeTdispRequest, decodeTdispResponse, encodeTdispResponse, LOCK_FLAG } from '../tdisp/messages.ts';
import { INTERFACE_INFO, type InterfaceReport, RANGE_ATTRIBUTE } from '../tdisp/report.ts';
import type { TdispResponder } from '../tdisp/responder.ts';
import type { TdispLie } from './hostile.ts';

/** What the device reports for a lock with these flags; `report` is the truth with MSI-X locked. */
export function reportOf(lie: TdispLie | null, report: InterfaceReport, lockFlags: number): InterfaceReport {
  const msix = RANGE_ATTRIBUTE.msixTable | RANGE_ATTRIBUTE.msixPba;
  const bare: InterfaceReport = {
    ...report,
    msixControl: 0,
    ranges: report.ranges.map((range) => ({ ...range, attributes: range.attributes & ~msix })),
  };
  switch (lie) {
    case 'tdisp-other-bars':
      // Registers elsewhere, and more of them than the function has.
      return {
        ...report,
        ranges: report.ranges.map((range) => ({
          ...range,
          firstPage: range.firstPage + 0x10n,
          pages: range.pages + 0x1000,
        })),
      };
    case 'tdisp-lock-flags':
      // As if nothing had been asked of the lock.
      return { ...bare, info: report.info & ~INTERFACE_INFO.noUpdateAfterLock };
    default:
      return (lockFlags & LOCK_FLAG.lockMsix) === 0 ? bare : report;
  }
}

const OLD_NONCE = new Uint8Array(32).fill(0x11);

/** `answer` of a responder whose device lies. */
export function createTdispLiar(lie: TdispLie, honest: TdispResponder): TdispResponder['answer'] {
  return (session, request): Result<Uint8Array> => {
    const asked = decodeTdispRequest(request);
    const answer = honest.answer(session, request);
    const said = answer.ok ? decodeTdispResponse(answer.value) : answer;
    if (!answer.ok || !asked.ok || !said.ok) return answer;
    const { interface: id, message } = said.value;
    if (message.name === 'GET_VERSION' && lie === 'tdisp-version-downgrade')
      return ok(encodeTdispResponse(id, { ...message, versions: [0x0f] }));
    if (message.name === 'GET_DEVICE_INTERFACE_REPORT' && lie === 'tdisp-oversized-report')
      return ok(encodeTdispResponse(id, { ...message, remainder: 0xffff }));
    if (message.name !== 'LOCK_INTERFACE') return answer;
    if (lie === 'tdisp-stale-nonce') return ok(encodeTdispResponse(id, { ...message, nonce: OLD_NONCE }));
    if (lie === 'tdisp-error') honest.violate(id);
    return answer;
  };
}
