/** A front-end that is killed while the disk works for it: `dying-driver.ts SOCKET`. */
import { BlockDriver } from '@airlock/transport/vhost-user/block-driver.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { BLK_OUT } from '@airlock/virtio/request/block.ts';
import { systemCalls } from './disk-file.ts';
import { must } from './in-memory-driver.ts';

const front = must(FrontEnd.connect(process.argv[2] ?? '', { calls: systemCalls }));
const driver = must(BlockDriver.open(front, { queues: 1, size: 64, transfer: 65536, depth: 16 }));
const queue = driver.queues.all[0];
for (let i = 0; i < 16 && queue !== undefined; i++) driver.submit(queue, BLK_OUT, i * 128, new Uint8Array(65536), 0);
queue?.publish();
process.kill(process.pid, 'SIGKILL');
