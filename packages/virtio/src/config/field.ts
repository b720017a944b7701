/** The words in which a device type's configuration space and queues are written down. VIRTIO 1.4 §2.5, §5. */

/** Who writes a field. `read` and `write` are the driver's. */
export type Access = 'read' | 'write' | 'read-write';

export interface ConfigField {
  /** As in the standard's structure; a nested structure's fields are joined with a dot: `geometry.heads`. */
  readonly name: string;
  readonly offset: number;
  /** Bytes of one element. Little-endian. */
  readonly width: 1 | 2 | 4 | 8;
  /** How many elements, where it is an array; or the field that says so. */
  readonly count?: number | string;
  /** An array of bytes that is text, padded with zeros. */
  readonly text?: true;
  /** A field of 8 bytes whose values do not fit 53 bits: decoded as two words, lowest first. */
  readonly words?: true;
  readonly access: Access;
  /** The field is there when one of these features was negotiated; always, when this is absent. */
  readonly features?: readonly string[];
  /** The field means nothing when this feature was negotiated. */
  readonly unless?: string;
  readonly min?: number;
  readonly max?: number;
  readonly powerOfTwo?: true;
}

type More = Partial<Pick<ConfigField, 'access' | 'features' | 'unless' | 'min' | 'max' | 'powerOfTwo' | 'words'>>;

export function u8(name: string, offset: number, more: More = {}): ConfigField {
  return { name, offset, width: 1, access: 'read', ...more };
}

export function le16(name: string, offset: number, more: More = {}): ConfigField {
  return { name, offset, width: 2, access: 'read', ...more };
}

export function le32(name: string, offset: number, more: More = {}): ConfigField {
  return { name, offset, width: 4, access: 'read', ...more };
}

export function le64(name: string, offset: number, more: More = {}): ConfigField {
  return { name, offset, width: 8, access: 'read', ...more };
}

export function bytes(name: string, offset: number, count: number | string, more: More = {}): ConfigField {
  return { name, offset, width: 1, count, access: 'read', ...more };
}

export function text(name: string, offset: number, count: number | string, more: More = {}): ConfigField {
  return { name, offset, width: 1, count, text: true, access: 'read', ...more };
}

/** Some virtqueues of a device type, in the order of their numbers. */
export interface QueueGroup {
  /** `{n}` in a name stands for the number within the group. */
  readonly names: readonly string[];
  /** The first `{n}`; 1 when absent. */
  readonly from?: number;
  /**
   * The field that says how many times the names come, while one of `countFeatures` was negotiated (or always, when
   * that is absent); once otherwise.
   */
  readonly count?: string;
  readonly countFeatures?: readonly string[];
  /** Subtracted from the field: a console's port 0 is counted in it and stands in a group of its own. */
  readonly less?: number;
  /** The group is there only when this feature was negotiated. */
  readonly feature?: string;
}

export interface DeviceType {
  readonly name: string;
  /** Section of VIRTIO 1.4. */
  readonly clause: string;
  readonly config: readonly ConfigField[];
  readonly queues: readonly QueueGroup[];
}
