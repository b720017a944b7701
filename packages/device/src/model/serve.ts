/** What every model has in common on the command line: its `--control` socket. */
import { resolve } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { readText } from '../option-value.ts';
import type { DeviceHost, DeviceNeeds, OptionValues, PreparedDevice, ServedType, ServeOption } from '../serve-type.ts';
import { openControl } from './control.ts';
import { ModelDevice } from './device.ts';
import type { DeviceModel } from './model.ts';

/** Options that were read: how the device is described, and how its model is made. */
export interface PreparedModel {
  /** As of every device; the control socket is added. */
  readonly needs?: DeviceNeeds;
  describe(): string;
  make(host: DeviceHost): Result<DeviceModel>;
}

export interface ServedModel {
  readonly summary: string;
  readonly options: Readonly<Record<string, ServeOption>>;
  /** As of every type. */
  readonly not?: Readonly<Record<string, string>>;
  /** Code: `device-option-invalid`. Pure. */
  prepare(values: OptionValues): Result<PreparedModel>;
}

const CONTROL: ServeOption = {
  type: 'string',
  value: 'SOCKET',
  help: 'a Unix socket on which the device says what it has seen (facts) and takes its words',
};

/** A model as a type of device of `airlock device serve`. */
export function servedModel(model: ServedModel): ServedType {
  return {
    summary: model.summary,
    options: { ...model.options, control: CONTROL },
    ...(model.not === undefined ? {} : { not: model.not }),
    prepare(values): Result<PreparedDevice> {
      const socket = readText(values, 'control');
      if (!socket.ok) return socket;
      const prepared = model.prepare(values);
      if (!prepared.ok) return prepared;
      const path = socket.value;
      return ok({
        describe: prepared.value.describe,
        needs: { ...prepared.value.needs, ...(path === null ? {} : { listens: [path] }) },
        open(host) {
          const made = prepared.value.make(host);
          if (!made.ok) return made;
          if (path === null) return ok(new ModelDevice(made.value));
          const opened = openControl(host.calls, host.reactor, resolve(host.folder, path), made.value);
          if (!opened.ok) {
            made.value.close?.();
            return opened;
          }
          return ok(new ModelDevice(made.value, () => opened.value.close()));
        },
      });
    },
  };
}
