import type { DeviceType } from '../config/field.ts';

export const rtc: DeviceType = {
  name: 'rtc',
  clause: '5.23',
  config: [],
  queues: [{ names: ['requestq'] }, { names: ['alarmq'], feature: 'RTC_F_ALARM' }],
};
