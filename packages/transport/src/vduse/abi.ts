/** VDUSE's numbers and structures: include/uapi/linux/vduse.h, API version 0, as 64-bit kernels have them. */

export const GET_API_VERSION = 0x80088100;
export const SET_API_VERSION = 0x40088101;
export const CREATE_DEV = 0x41508102;
export const DESTROY_DEV = 0x41008103;
export const IOTLB_GET_FD = 0xc0208110;
export const DEV_GET_FEATURES = 0x80088111;
export const DEV_SET_CONFIG = 0x40088112;
export const INJECT_CONFIG_IRQ = 0x8113;
export const VQ_SETUP = 0x40208114;
export const VQ_GET_INFO = 0xc0308115;
export const VQ_SETUP_KICKFD = 0x40088116;
export const VQ_INJECT_IRQ = 0x40048117;

/** struct vduse_dev_config, up to its bytes of configuration space. */
export const CONFIG_HEADER = 336;
export const NAME_LIMIT = 255;
/** struct vduse_dev_request and vduse_dev_response. */
export const MESSAGE_SIZE = 152;
export const BODY_AT = 24;

export const REQUEST_GET_VQ_STATE = 0;
export const REQUEST_SET_STATUS = 1;
export const REQUEST_UPDATE_IOTLB = 2;

export const RESULT_OK = 0;
export const RESULT_FAILED = 1;

/** What a split or packed queue's state is on the wire: four halves, of which a split queue uses the first. */
export interface QueueState {
  readonly avail: number;
  readonly availWrap: boolean;
  readonly used: number;
  readonly usedWrap: boolean;
}

export function readQueueState(view: DataView, at: number, packed: boolean): QueueState {
  const first = view.getUint16(at, true);
  if (!packed) return { avail: first, availWrap: false, used: first, usedWrap: false };
  return {
    availWrap: first !== 0,
    avail: view.getUint16(at + 2, true),
    usedWrap: view.getUint16(at + 4, true) !== 0,
    used: view.getUint16(at + 6, true),
  };
}

export function writeQueueState(view: DataView, at: number, packed: boolean, state: QueueState): void {
  if (!packed) {
    view.setUint16(at, state.avail, true);
    return;
  }
  view.setUint16(at, state.availWrap ? 1 : 0, true);
  view.setUint16(at + 2, state.avail, true);
  view.setUint16(at + 4, state.usedWrap ? 1 : 0, true);
  view.setUint16(at + 6, state.used, true);
}
