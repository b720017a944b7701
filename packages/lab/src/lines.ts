/** Splits a stream of bytes into lines, with a limit: whoever sends may send anything. Pure. */

/** Feeds bytes in, gives whole lines out (latin-1, without the newline). A line over `limit` is cut and marked. */
export function lineSplitter(limit: number): (bytes: Uint8Array) => { readonly text: string; readonly cut: boolean }[] {
  let pending = '';
  let cut = false;
  return (bytes) => {
    const lines: { text: string; cut: boolean }[] = [];
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
    for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n')) {
      const room = Math.max(0, limit - pending.length);
      const text = pending + rest.slice(0, Math.min(end, room));
      lines.push({ text, cut: cut || end > room });
      pending = '';
      cut = false;
      rest = rest.slice(end + 1);
    }
    const room = Math.max(0, limit - pending.length);
    if (rest.length > room) cut = true;
    pending += rest.slice(0, room);
    return lines;
  };
}
