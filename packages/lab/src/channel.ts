/**
 * The command channel: how the host runs a shell command in the guest, over a serial line of its own. Pure; both ends
 * speak lines, and whatever else appears on the line (a kernel that is confused about its console) is ignored.
 *
 *     host   run ID SECONDS BASE64(script)
 *     guest  @lab ready
 *            @lab ID o BASE64      a piece of standard output
 *            @lab ID e BASE64      a piece of standard error
 *            @lab ID x STATUS      the end; 124 or more than 128 for a command that was ended by its time limit
 */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { lineSplitter } from './lines.ts';

/** A script's limit: the guest's serial driver holds 64 KiB, and nothing else may be lost. */
export const SCRIPT_LIMIT = 24_000;
/** What one command may print; the rest is dropped and `truncated` says so. */
export const OUTPUT_LIMIT = 4 << 20;

export interface Answer {
  readonly status: number;
  /** Bytes as characters, what is not printable ASCII escaped as `\xNN`. */
  readonly stdout: string;
  readonly stderr: string;
  readonly truncated: boolean;
}

export type ChannelMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'answer'; readonly id: number; answer: Answer };

/** The line that starts a command. Codes: `channel-command`. */
export function encodeCommand(id: number, seconds: number, script: string): Result<string> {
  if (script.includes('\0')) return fail('channel-command', 'a command with a NUL');
  const bytes = Buffer.from(script, 'utf8');
  if (bytes.length > SCRIPT_LIMIT) {
    return fail('channel-command', `a command of ${bytes.length} bytes; at most ${SCRIPT_LIMIT}`);
  }
  return ok(`run ${id} ${Math.max(1, Math.ceil(seconds))} ${bytes.toString('base64')}\n`);
}

/** Feeds bytes of the line in, gives messages out. Never fails: what is no message is not for us. */
export function channelReader(): (bytes: Uint8Array) => ChannelMessage[] {
  const split = lineSplitter(16_384);
  const open = new Map<number, { o: Buffer[]; e: Buffer[]; size: number; truncated: boolean }>();
  return (bytes) => {
    const messages: ChannelMessage[] = [];
    for (const line of split(bytes)) {
      // Anchored at the end of the line only: text without a newline may stand before it.
      const found = /@lab (?:(ready)|(\d{1,9}) (?:([oe]) ([A-Za-z0-9+/]{0,12000}={0,2})|x (\d{1,3})))\r?$/.exec(
        line.text,
      );
      if (!found || line.cut) continue;
      const [, ready, number, stream, piece, status] = found;
      if (ready !== undefined) {
        messages.push({ kind: 'ready' });
        continue;
      }
      const id = Number(number);
      const running = open.get(id) ?? { o: [], e: [], size: 0, truncated: false };
      if (status !== undefined) {
        open.delete(id);
        const text = (pieces: Buffer[]) => asciiText(Buffer.concat(pieces));
        messages.push({
          kind: 'answer',
          id,
          answer: {
            status: Number(status),
            stdout: text(running.o),
            stderr: text(running.e),
            truncated: running.truncated,
          },
        });
        continue;
      }
      if (open.size < 64) open.set(id, running);
      const data = Buffer.from(piece ?? '', 'base64');
      if (running.size + data.length > OUTPUT_LIMIT) running.truncated = true;
      else {
        running.size += data.length;
        (stream === 'o' ? running.o : running.e).push(data);
      }
    }
    return messages;
  };
}

/**
 * The guest's end, for busybox's shell. Output goes to files first, so that a command that leaves something running
 * behind does not hold the line. `read` takes a byte at a time, so nothing of the next command is swallowed.
 */
export const CHANNEL_SCRIPT = `#!/bin/busybox sh
folder=/tmp/lab
mkdir -p $folder
# For guests whose policy takes the serial lines away: sysfs as it was, then the lines back, by hand.
if grep -q lab.line=bind /proc/cmdline; then
  sh /run/lab/view >$folder/view
  for line in 00:00 00:01 00:02; do
    [ -e /sys/bus/pnp/devices/$line/driver ] || echo $line >/sys/bus/pnp/drivers/serial/bind
  done
fi
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo 115200
printf '@lab ready\\n' >&3
while read -r word id seconds script <&3; do
  [ "$word" = run ] || continue
  printf %s "$script" | base64 -d >$folder/script
  timeout -s KILL "$seconds" sh $folder/script >$folder/o 2>$folder/e </dev/null 3<&-
  status=$?
  for stream in o e; do
    [ -s $folder/$stream ] && base64 -w 4000 $folder/$stream | while read -r piece; do
      printf '@lab %s %s %s\\n' "$id" $stream "$piece"
    done >&3
  done
  printf '@lab %s x %s\\n' "$id" $status >&3
done
`;
