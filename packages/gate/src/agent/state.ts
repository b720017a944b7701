/** Where the agent and the gate keep what they know. All of it is root's alone. */

export const RUN_FOLDER = '/run/airlock';

export const STATE = {
  /** What the gate did: mode, policy, kernel, milliseconds, problems. */
  gate: `${RUN_FOLDER}/gate.json`,
  /** Ids of the devices that were there when the gate first looked. */
  bootDevices: `${RUN_FOLDER}/boot-devices.json`,
  /** Their inode numbers in sysfs, by id. */
  bootInodes: `${RUN_FOLDER}/boot-inodes.json`,
  /** Each device's latest decision with what became of it. */
  enforcement: `${RUN_FOLDER}/enforcement.json`,
  /** The decision log: one event a line. */
  events: `${RUN_FOLDER}/events.ndjson`,
  eventsBefore: `${RUN_FOLDER}/events.1.ndjson`,
  /** The policy document that the gate used. */
  policy: `${RUN_FOLDER}/policy.json`,
  /** The files that its rules name, measured with it. */
  anchors: `${RUN_FOLDER}/anchors`,
  /** Grants of this boot. */
  grants: `${RUN_FOLDER}/grants.json`,
  /** Devices that have proven who they are: what is in use stays in use while the next agent asks anew. */
  proofs: `${RUN_FOLDER}/proofs.json`,
  /** Devices that are kept out because they misbehaved. */
  holds: `${RUN_FOLDER}/quarantine.json`,
  /** Grants without an end. */
  permanentGrants: '/var/lib/airlock/grants.json',
  socket: `${RUN_FOLDER}/control.sock`,
} as const;
