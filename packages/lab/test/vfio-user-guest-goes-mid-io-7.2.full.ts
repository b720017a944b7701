import { guestGoesMidIo } from './vfio-user-guest-goes-mid-io.ts';

guestGoesMidIo({ resets: true });
